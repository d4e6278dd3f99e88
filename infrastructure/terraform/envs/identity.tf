# How callers are identified: AUTH_… of the gateway. docs/security.md. Tasks have no way out to fetch keys, so the issuer's public keys
# are handed in, through Secrets Manager: a change of them needs no new task definition.

locals {
  with_tokens = var.auth_mode == "jwt"
  by_secret   = local.with_tokens && var.auth_jwks == null

  identity_settings = merge({ AUTH_MODE = var.auth_mode }, local.with_tokens ? {
    AUTH_ISSUER   = var.auth_issuer
    AUTH_AUDIENCE = var.auth_audience
    AUTH_LEEWAY_S = tostring(var.auth_leeway_s)
  } : {})

  identity_secrets = merge(
    { for each in aws_secretsmanager_secret_version.keys : "AUTH_JWKS" => each.arn },
    lookup(local.own_references, "signing", {}),
    local.api_key_references,
    local.signing_key_secrets,
  )
  identity_instants = merge(lookup(local.own_instants, "signing", {}), local.api_key_instants)

  identity_secret_arns = concat(
    aws_secretsmanager_secret_version.keys[*].arn,
    aws_secretsmanager_secret_version.signing[*].arn,
    local.api_key_secret_arns,
    values(local.signing_key_secrets),
  )
}

resource "aws_secretsmanager_secret" "identity" {
  #checkov:skip=CKV2_AWS_57:its keys are the issuer's; docs/deploy-aws.md has the steps
  count                   = local.with_tokens ? 1 : 0
  name_prefix             = "${local.name}/identity-"
  description             = "What tokens are checked with"
  kms_key_id              = module.encryption.key_arn
  recovery_window_in_days = local.secret_recovery_days
}

# Public keys: they may be in the variables and in the state.
resource "aws_secretsmanager_secret_version" "keys" {
  count         = local.with_tokens && !local.by_secret ? 1 : 0
  secret_id     = aws_secretsmanager_secret.identity[0].id
  secret_string = var.auth_jwks
}

# Without public keys, a secret that Secrets Manager makes; the issuer gets it from there.
data "aws_secretsmanager_random_password" "signing" {
  count               = local.by_secret ? 1 : 0
  password_length     = 64
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret_version" "signing" {
  count         = local.by_secret ? 1 : 0
  secret_id     = aws_secretsmanager_secret.identity[0].id
  secret_string = data.aws_secretsmanager_random_password.signing[0].random_password

  lifecycle {
    ignore_changes = [secret_string]
  }
}
