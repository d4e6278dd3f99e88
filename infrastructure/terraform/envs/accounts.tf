# As whom each service reaches PostgreSQL: a login of its own, with the rights in shared/permissions. `migrate`, which owns the tables,
# makes the logins and gives them these passwords. What a service must never do, it then cannot, whoever is inside its task.

locals {
  accounts = ["gateway", "broadcaster", "archiver", "cache", "operator"]

  account_passwords = { for account in local.accounts : account => "${aws_secretsmanager_secret_version.accounts.arn}:${account}::" }

  # For `migrate`: GATEWAY_PASSWORD and so on.
  login_secrets = { for account, reference in local.account_passwords : "${upper(account)}_PASSWORD" => reference }

  # Certificates in PEM of the authority that PostgreSQL's has to come from; without it any server that encrypts is believed.
  postgres_authority = var.postgres_ca == null ? {} : { POSTGRES_CA = var.postgres_ca }
}

data "aws_secretsmanager_random_password" "account" {
  for_each            = toset(local.accounts)
  password_length     = 48
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "accounts" {
  #checkov:skip=CKV2_AWS_57:a service changes over by a second login, and its tasks have to start anew; docs/deploy-aws.md has the steps
  name_prefix             = "${local.name}/accounts-"
  description             = "Passwords of the services' logins at PostgreSQL"
  kms_key_id              = module.encryption.key_arn
  recovery_window_in_days = local.secret_recovery_days
}

resource "aws_secretsmanager_secret_version" "accounts" {
  secret_id     = aws_secretsmanager_secret.accounts.id
  secret_string = jsonencode({ for account in local.accounts : account => data.aws_secretsmanager_random_password.account[account].random_password })

  lifecycle {
    # The data sources answer anew at each plan; what counts is the first answer.
    ignore_changes = [secret_string]
  }
}
