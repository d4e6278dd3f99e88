# The platform's own secrets in pairs (docs/security.md): where `secrets_since` names one, tasks are told the secret that it replaces
# (X_ALSO) and when it takes over (X_SINCE). The version is part of each reference, so that a task that ECS starts in between has the same
# secrets as the other tasks of its revision, and no secret that those do not know yet.

locals {
  # By the name in `secrets_since`: settings, each with the secret, its key where the secret is JSON, and the version.
  own_secrets = merge(
    { application = {
      ALIAS_SECRET      = { arn = aws_secretsmanager_secret_version.application.arn, key = "alias_secret", version = aws_secretsmanager_secret_version.application.version_id }
      FEED_TOKEN_SECRET = { arn = aws_secretsmanager_secret_version.application.arn, key = "feed_token_secret", version = aws_secretsmanager_secret_version.application.version_id }
    } },
    { for each in aws_secretsmanager_secret_version.signing : "signing" => { AUTH_HS256_SECRET = { arn = each.arn, key = "", version = each.version_id } } },
    { for each in aws_secretsmanager_secret_version.api_keys : "api_keys" => { API_KEY_SECRET = { arn = each.arn, key = "", version = each.version_id } } },
  )

  # References of ECS: secret, key, stage, version.
  own_references = { for name, settings in local.own_secrets : name => merge(
    { for setting, secret in settings : setting => "${secret.arn}:${secret.key}::${secret.version}" },
    { for setting, secret in settings : "${setting}_ALSO" => "${secret.arn}:${secret.key}:AWSPREVIOUS:" if contains(keys(var.secrets_since), name) },
  ) }

  own_instants = { for name, settings in local.own_secrets : name => {
    for setting in keys(settings) : "${setting}_SINCE" => var.secrets_since[name] if contains(keys(var.secrets_since), name)
  } }

  # Of aliases alone.
  alias_references = { for setting, reference in local.own_references["application"] : setting => reference if startswith(setting, "ALIAS_") }
  alias_instants   = { for setting, instant in local.own_instants["application"] : setting => instant if startswith(setting, "ALIAS_") }

  api_key_references = lookup(local.own_references, "api_keys", {})
  api_key_instants   = lookup(local.own_instants, "api_keys", {})
}
