# Keys with which services get tokens: docs/security.md. Without auth_jwks the gateway signs those tokens with the secret by which it
# checks tokens. With the public keys of an issuer it needs a private key, which is made outside, so that it is not in the state.

locals {
  with_api_keys = local.with_tokens && var.api_keys

  signing_key_secrets = local.with_api_keys && var.auth_signing_key_arn != null ? { AUTH_SIGNING_KEY = var.auth_signing_key_arn } : {}
  api_key_secret_arns = aws_secretsmanager_secret_version.api_keys[*].arn
}

data "aws_secretsmanager_random_password" "api_keys" {
  count               = local.with_api_keys ? 1 : 0
  password_length     = 64
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "api_keys" {
  #checkov:skip=CKV2_AWS_57:services have to be given other keys meanwhile; docs/deploy-aws.md has the steps
  count                   = local.with_api_keys ? 1 : 0
  name_prefix             = "${local.name}/api-keys-"
  description             = "What the hashes of API keys are keyed with"
  kms_key_id              = module.encryption.key_arn
  recovery_window_in_days = local.secret_recovery_days
}

resource "aws_secretsmanager_secret_version" "api_keys" {
  count         = local.with_api_keys ? 1 : 0
  secret_id     = aws_secretsmanager_secret.api_keys[0].id
  secret_string = data.aws_secretsmanager_random_password.api_keys[0].random_password

  lifecycle {
    ignore_changes = [secret_string]
  }
}
