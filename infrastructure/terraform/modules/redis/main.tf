# The judge of bids. Two engines, because "acknowledged" means different things on them:
#
#   elasticache  Valkey with a replica in another zone. Writes are in memory only: ElastiCache has no append-only file for
#                Valkey, hence nothing like `appendfsync always`, and a failover may lose the last moments.
#                So an acknowledgement has to wait for more than the commit: BID_ACK=replica or log.
#                With several shards it is a cluster, and the services are told so by the scheme of its address.
#   memorydb     Valkey too, in versions of MemoryDB's own. Each write is in a log over several zones before its answer, so
#                BID_ACK=redis is enough.
#                Fixed to one shard without replicas: the services speak the plain protocol to one address, and the cluster
#                endpoint also names replicas, which answer MOVED. The log survives the loss of the node; writing stands still
#                for the minutes until it is replaced.
#
# Each service logs in as itself and may do what shared/permissions says: users.json has it, written by
# `python -m infrastructure.docker.permissions`. Whoever gives no name may do nothing.
#
# Passwords are made by Secrets Manager, not here. They are in the state, as both engines take them as arguments, so the state
# is a secret too: docs/deploy-aws.md.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

locals {
  on_memorydb    = var.engine == "memorydb"
  on_elasticache = var.engine == "elasticache"
  is_cluster     = local.on_elasticache && var.shards > 1
  # The secret of the single account of former versions, which had no account for each service; nothing runs with it.
  former_password = aws_secretsmanager_secret_version.password.secret_string

  # Access strings by account.
  access = jsondecode(file("${path.module}/users.json"))
}

data "aws_secretsmanager_random_password" "redis" {
  password_length     = 48
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "password" {
  #checkov:skip=CKV2_AWS_57:both engines take a new password through Terraform; docs/deploy-aws.md has the steps
  name_prefix             = "${var.name}/redis-"
  description             = "Password of the former account of Redis, with which nothing runs"
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.secret_recovery_days
}

resource "aws_secretsmanager_secret_version" "password" {
  secret_id     = aws_secretsmanager_secret.password.id
  secret_string = data.aws_secretsmanager_random_password.redis.random_password

  lifecycle {
    # The data source answers anew at each plan; what counts is the first answer.
    ignore_changes = [secret_string]
  }
}

resource "aws_elasticache_subnet_group" "this" {
  count      = local.on_elasticache ? 1 : 0
  name       = var.name
  subnet_ids = var.subnet_ids
}

resource "aws_elasticache_parameter_group" "this" {
  count  = local.on_elasticache ? 1 : 0
  name   = local.is_cluster ? "${var.name}-valkey9-cluster" : "${var.name}-valkey9"
  family = "valkey9"

  # A full Redis refuses bids; it never forgets one.
  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }

  dynamic "parameter" {
    for_each = local.is_cluster ? {
      cluster-enabled = "yes"
      # While one shard is away, the others go on serving what they have.
      cluster-require-full-coverage = "no"
    } : {}

    content {
      name  = parameter.key
      value = parameter.value
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

# A user of the engine's own kind: that takes no user without a password.
resource "aws_elasticache_user" "account" {
  for_each      = local.on_elasticache ? local.access : {}
  user_id       = "${var.name}-${each.key}"
  user_name     = each.key
  engine        = "valkey"
  access_string = each.value

  authentication_mode {
    type      = "password"
    passwords = var.passwords[each.key]
  }
}

# The user of clients that give no name. Nobody is admitted so; while a cluster moves from its one token to accounts, clients with the
# token are.
resource "aws_elasticache_user" "default" {
  count         = local.on_elasticache ? 1 : 0
  user_id       = "${var.name}-default"
  user_name     = "default"
  engine        = "valkey"
  access_string = var.former_account ? "on ~* &* +@all" : "off resetchannels -@all"

  authentication_mode {
    type      = "password"
    passwords = [local.former_password]
  }
}

resource "aws_elasticache_user_group" "this" {
  count         = local.on_elasticache ? 1 : 0
  user_group_id = var.name
  engine        = "valkey"
  user_ids      = concat(aws_elasticache_user.default[*].user_id, [for user in aws_elasticache_user.account : user.user_id])
}

resource "aws_elasticache_replication_group" "this" {
  #checkov:skip=CKV2_AWS_50:multi-AZ follows the number of replicas: on in prod (tested in envs/prod), off in dev for its cost
  count                = local.on_elasticache ? 1 : 0
  replication_group_id = var.name
  description          = "The judge of bids of ${var.name}"
  engine               = "valkey"
  engine_version       = "9.1"
  node_type            = var.node_type
  port                 = var.port
  parameter_group_name = aws_elasticache_parameter_group.this[0].name
  subnet_group_name    = aws_elasticache_subnet_group.this[0].name
  security_group_ids   = [var.security_group_id]

  num_cache_clusters         = local.is_cluster ? null : 1 + var.replicas
  num_node_groups            = local.is_cluster ? var.shards : null
  replicas_per_node_group    = local.is_cluster ? var.replicas : null
  automatic_failover_enabled = local.is_cluster || var.replicas > 0
  multi_az_enabled           = var.replicas > 0

  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  kms_key_id                 = var.kms_key_arn
  user_group_ids             = [aws_elasticache_user_group.this[0].user_group_id]

  # A copy for inspection only. Never restore it under running services: docs/operations.md says why and what to do instead.
  snapshot_retention_limit  = var.snapshot_days
  final_snapshot_identifier = var.final_snapshot ? "${var.name}-final" : null
  snapshot_window           = "03:00-04:00"
  maintenance_window        = "sun:05:00-sun:06:00"
  # The version above is the one that the tests run with. AWS would raise it behind Terraform's back, and the next plan would
  # ask for a step back, which it refuses; so a new version is a change of that line.
  auto_minor_version_upgrade = false
  apply_immediately          = false

  lifecycle {
    # The token of versions before is taken away by a command (docs/deploy-aws.md), not by an apply: AWS wants that and the user
    # group in one call.
    ignore_changes = [auth_token, auth_token_update_strategy]
  }
}

resource "aws_memorydb_subnet_group" "this" {
  count      = local.on_memorydb ? 1 : 0
  name       = var.name
  subnet_ids = var.subnet_ids
}

resource "aws_memorydb_parameter_group" "this" {
  count  = local.on_memorydb ? 1 : 0
  name   = "${var.name}-valkey7"
  family = "memorydb_valkey7"

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_memorydb_user" "account" {
  for_each      = local.on_memorydb ? local.access : {}
  user_name     = "${var.name}-${each.key}"
  access_string = each.value

  authentication_mode {
    type      = "password"
    passwords = var.passwords[each.key]
  }
}

# The single account of former versions, for as long as tasks run with it.
resource "aws_memorydb_user" "this" {
  count     = local.on_memorydb && var.former_account ? 1 : 0
  user_name = "${var.name}-bidding"
  # Everything but commands that administer the server; and INFO, by which the services learn whom they talk to.
  access_string = "on ~* &* +@all -@admin -@dangerous +info"

  authentication_mode {
    type      = "password"
    passwords = [local.former_password]
  }
}

resource "aws_memorydb_acl" "this" {
  count      = local.on_memorydb ? 1 : 0
  name       = var.name
  user_names = concat(aws_memorydb_user.this[*].user_name, [for user in aws_memorydb_user.account : user.user_name])
}

resource "aws_memorydb_cluster" "this" {
  count                    = local.on_memorydb ? 1 : 0
  name                     = var.name
  description              = "The judge of bids of ${var.name}"
  engine                   = "valkey"
  engine_version           = "7.3"
  node_type                = var.node_type
  port                     = var.port
  num_shards               = 1
  num_replicas_per_shard   = 0
  parameter_group_name     = aws_memorydb_parameter_group.this[0].name
  subnet_group_name        = aws_memorydb_subnet_group.this[0].name
  security_group_ids       = [var.security_group_id]
  acl_name                 = aws_memorydb_acl.this[0].name
  tls_enabled              = true
  kms_key_arn              = var.kms_key_arn
  snapshot_retention_limit = var.snapshot_days
  final_snapshot_name      = var.final_snapshot ? "${var.name}-final" : null
  snapshot_window          = "03:00-04:00"
  maintenance_window       = "sun:05:00-sun:06:00"
  # As above.
  auto_minor_version_upgrade = false
}
