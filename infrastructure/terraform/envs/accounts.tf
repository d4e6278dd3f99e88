# As whom each service reaches Redis, NATS and PostgreSQL: an account of its own, with what shared/permissions allows it. `migrate`, which
# owns the tables, makes the logins there and gives them these passwords; the servers of NATS have them in their configuration, Redis as its
# users. So a service cannot do what it must never do, even if somebody else controls its task.

locals {
  accounts = ["gateway", "broadcaster", "archiver", "cache", "operator"]

  account_passwords = { for account in local.accounts : account => "${aws_secretsmanager_secret_version.accounts.arn}:${account}::" }

  # What a service is told: its user, which its own settings may change while one login replaces another; and its passwords.
  logins = { for account, reference in local.account_passwords : account => {
    users   = merge({ NATS_USER = account, POSTGRES_USER = account }, { for name in local.at_redis : "REDIS_USER" => module.redis.users[name] if name == account })
    secrets = merge({ NATS_PASSWORD = reference, POSTGRES_PASSWORD = reference }, { for name in local.at_redis : "REDIS_PASSWORD" => reference if name == account })
  } }

  # Nodes of the read cache have no business there.
  at_redis = setsubtract(local.accounts, ["cache"])

  # Both, while services change over to the new ones: a user of Redis takes two.
  redis_passwords = { for account in local.at_redis : account => [
    for version in concat([aws_secretsmanager_secret_version.accounts.secret_string], data.aws_secretsmanager_secret_version.former_accounts[*].secret_string) : jsondecode(version)[account]
  ] }

  # For `migrate` and NATS: GATEWAY_PASSWORD and so on.
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
  description             = "Passwords of the services at Redis, NATS and PostgreSQL"
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

# The passwords that were replaced last.
data "aws_secretsmanager_secret_version" "former_accounts" {
  count         = var.redis_two_passwords ? 1 : 0
  secret_id     = aws_secretsmanager_secret.accounts.id
  version_stage = "AWSPREVIOUS"

  # Read after they were replaced.
  depends_on = [aws_secretsmanager_secret_version.accounts]
}
