# The cluster and what runs in it. One image; its argument says which service it is.

resource "aws_ecs_cluster" "this" {
  name = local.name

  setting {
    name  = "containerInsights"
    value = var.container_insights
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]

  default_capacity_provider_strategy {
    capacity_provider = "FARGATE"
    weight            = 1
  }
}

resource "aws_service_discovery_private_dns_namespace" "this" {
  name        = "${local.name}.internal"
  description = "NATS servers and cache nodes"
  vpc         = module.network.vpc_id
}

data "aws_secretsmanager_random_password" "alias" {
  password_length     = 64
  exclude_punctuation = true
}

data "aws_secretsmanager_random_password" "feed" {
  password_length     = 64
  exclude_punctuation = true
}

# The keys of bidders' aliases and of the feed's tokens. Your own site signs tokens with the second one.
resource "aws_secretsmanager_secret" "application" {
  #checkov:skip=CKV2_AWS_57:your site has to sign with the new key, and services hold both meanwhile; docs/deploy-aws.md has the steps
  name_prefix             = "${local.name}/application-"
  description             = "Keys of aliases and feed tokens"
  kms_key_id              = module.encryption.key_arn
  recovery_window_in_days = local.secret_recovery_days
}

resource "aws_secretsmanager_secret_version" "application" {
  secret_id = aws_secretsmanager_secret.application.id
  secret_string = jsonencode({
    alias_secret      = data.aws_secretsmanager_random_password.alias.random_password
    feed_token_secret = data.aws_secretsmanager_random_password.feed.random_password
  })

  lifecycle {
    ignore_changes = [secret_string]
  }
}

locals {
  python_health_check = {
    command     = ["CMD", "python", "-m", "infrastructure.docker.healthcheck"]
    interval    = 15
    timeout     = 5
    retries     = 3
    startPeriod = 60
  }

  # Addresses are no secrets; the entry point of the image puts the passwords into them.
  addresses_without_redis = merge(local.postgres_authority, {
    ENVIRONMENT                  = var.environment
    LOG_LEVEL                    = var.log_level
    NATS_URL                     = module.nats.url
    NATS_STREAM_REPLICAS         = tostring(module.nats.replicas)
    METRICS_CLOUDWATCH_NAMESPACE = local.own_metrics.namespace
  })
  addresses = merge(local.addresses_without_redis, { REDIS_URL = module.redis.url })

  # Credentials of the owner of the tables: for `migrate` and `login` alone.
  owner_secrets = {
    POSTGRES_USER     = "${module.postgres.secret_arn}:username::"
    POSTGRES_PASSWORD = "${module.postgres.secret_arn}:password::"
  }

  # Settings of the command that owns the tables; it reaches no server but PostgreSQL.
  tables_environment = merge(local.postgres_authority, {
    ENVIRONMENT  = var.environment
    LOG_LEVEL    = var.log_level
    POSTGRES_URL = module.postgres.url
  })

  # The archiver's settings are also those of the operators' commands.
  archiver_environment = merge(local.addresses, {
    POSTGRES_URL     = module.postgres.url
    EXPORT_S3_BUCKET = module.storage.exports_bucket
    ARCHIVER_STOP_S  = "20"
  })
  server_secret_arns = [aws_secretsmanager_secret_version.accounts.arn]

  # CloudWatch knows no resources for metrics; the namespace is the bound.
  may_report = jsonencode({
    Sid       = "ReportOwnMetrics"
    Effect    = "Allow"
    Action    = ["cloudwatch:PutMetricData"]
    Resource  = ["*"]
    Condition = { StringEquals = { "cloudwatch:namespace" = local.own_metrics.namespace } }
  })

  may_export = [
    jsonencode({
      Sid      = "WriteAndVerifyExports"
      Effect   = "Allow"
      Action   = ["s3:GetObject", "s3:PutObject"]
      Resource = ["${module.storage.exports_bucket_arn}/*"]
    }),
    # Without it S3 answers 403 instead of 404 for an export that is not there yet.
    jsonencode({
      Sid      = "SeeThatAnExportIsMissing"
      Effect   = "Allow"
      Action   = ["s3:ListBucket"]
      Resource = [module.storage.exports_bucket_arn]
    }),
    jsonencode({
      Sid       = "EncryptExports"
      Effect    = "Allow"
      Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource  = [module.encryption.key_arn]
      Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }
    }),
  ]
}

module "gateway" {
  source             = "../modules/ecs-service"
  name               = "gateway"
  prefix             = local.name
  account_id         = local.account_id
  region             = var.region
  cluster_arn        = aws_ecs_cluster.this.arn
  cluster_name       = aws_ecs_cluster.this.name
  image              = local.image
  repository_arn     = local.repository_arns.platform
  command            = ["api_gateway"]
  cpu                = var.services["gateway"].cpu
  memory             = var.services["gateway"].memory
  cpu_architecture   = var.cpu_architecture
  ports              = [8080]
  scratch_volumes    = { tmp = "/tmp" }
  health_check       = local.python_health_check
  stop_timeout_s     = 40
  subnet_ids         = module.network.task_subnet_ids
  security_group_id  = module.network.security_group_ids["gateway"]
  enable_exec        = var.enable_exec
  log_retention_days = var.log_retention_days
  rollback_alarms    = local.rollback_alarms["gateway"]
  known_ends         = local.known_ends["gateway"]
  companions         = local.companions["gateway"]

  companion_repository_arns = local.companion_repos

  kms_key_arn     = module.encryption.key_arn
  secrets         = merge(local.logins["gateway"].secrets, local.own_references["application"], local.identity_secrets)
  secret_arns     = concat(local.server_secret_arns, [aws_secretsmanager_secret_version.application.arn], local.identity_secret_arns)
  task_statements = concat([local.may_report], local.may_write_metrics)

  # Where nodes run they are used, unless gateway_settings say otherwise.
  environment = merge(local.logins["gateway"].users, var.cache_node_enabled ? { READ_CACHE = "cluster" } : {}, var.gateway_settings, local.addresses, local.identity_settings, local.own_instants["application"], local.identity_instants, {
    POSTGRES_URL         = module.postgres.url
    BID_ACK              = var.bid_ack
    BROADCAST_PUBLIC_URL = "wss://${var.domain_name}"
    OPEN_CATALOGUE       = tostring(var.open_catalogue)
    # The balancer speaks from the public subnets: its connections are those of many clients. Behind it may be a site or CDN, whose
    # address is that of many people too; both say in X-Forwarded-For for whom they ask.
    GATEWAY_TRUSTED_PROXIES = join(",", concat(module.network.public_subnet_cidrs, var.proxy_cidrs))
    OPERATIONS_NETWORKS     = join(",", concat(["127.0.0.0/8"], var.operator_cidrs))
  })

  service = {
    desired          = var.services["gateway"].min
    spot             = var.services["gateway"].spot
    target_group_arn = module.alb.target_group_arns["gateway"]
  }

  scaling = {
    min                 = var.services["gateway"].min
    max                 = var.services["gateway"].max
    target              = var.services["gateway"].target
    cpu_percent         = var.services["gateway"].cpu_percent
    request_count_label = "${module.alb.arn_suffix}/${module.alb.target_group_suffixes["gateway"]}"
  }

  # Without NATS a gateway takes bids, but with bid_ack = "log" it answers none. A target group takes no service before it has
  # a listener.
  depends_on = [module.nats, module.alb]
}

module "broadcaster" {
  source             = "../modules/ecs-service"
  name               = "broadcaster"
  prefix             = local.name
  account_id         = local.account_id
  region             = var.region
  cluster_arn        = aws_ecs_cluster.this.arn
  cluster_name       = aws_ecs_cluster.this.name
  image              = local.image
  repository_arn     = local.repository_arns.platform
  command            = ["broadcast_service"]
  cpu                = var.services["broadcaster"].cpu
  memory             = var.services["broadcaster"].memory
  cpu_architecture   = var.cpu_architecture
  ports              = [8081]
  scratch_volumes    = { tmp = "/tmp" }
  health_check       = local.python_health_check
  stop_timeout_s     = 60
  subnet_ids         = module.network.task_subnet_ids
  security_group_id  = module.network.security_group_ids["broadcaster"]
  enable_exec        = var.enable_exec
  log_retention_days = var.log_retention_days
  rollback_alarms    = local.rollback_alarms["broadcaster"]
  known_ends         = local.known_ends["broadcaster"]
  companions         = local.companions["broadcaster"]

  companion_repository_arns = local.companion_repos

  kms_key_arn     = module.encryption.key_arn
  secrets         = merge(local.logins["broadcaster"].secrets, local.own_references["application"])
  secret_arns     = concat(local.server_secret_arns, [aws_secretsmanager_secret_version.application.arn])
  task_statements = concat([local.may_report], local.may_write_metrics)

  environment = merge(local.logins["broadcaster"].users, var.broadcaster_settings, local.addresses, local.own_instants["application"], {
    # Whether frames have aliases alone.
    AUTH_MODE = var.auth_mode
    # For closed items that have left Redis.
    POSTGRES_URL = module.postgres.url
    FEED_ORIGINS = join(",", var.feed_origins)
    # As of the gateway: else all viewers behind a site or CDN would be one address, and share its bound.
    FEED_TRUSTED_PROXIES = join(",", concat(module.network.public_subnet_cidrs, var.proxy_cidrs))
    # Viewers are sent away over this long, so that they do not all come back in the same second. It helps where SIGTERM comes
    # first; in a deployment the balancer has broken their connections before: modules/alb.
    FEED_DRAIN_S   = "20"
    OPEN_CATALOGUE = tostring(var.open_catalogue)
  })

  service = {
    desired          = var.services["broadcaster"].min
    spot             = var.services["broadcaster"].spot
    target_group_arn = module.alb.target_group_arns["broadcaster"]
  }

  scaling = {
    min    = var.services["broadcaster"].min
    max    = var.services["broadcaster"].max
    target = var.services["broadcaster"].target
    # Frames are made on one core: that is full long before 8,000 viewers of a busy item are there.
    cpu_percent = var.services["broadcaster"].cpu_percent
    metric = {
      namespace  = local.own_metrics.namespace
      name       = local.own_metrics.connections
      statistic  = "Average"
      dimensions = { Service = local.own_metrics.services.broadcaster }
    }
  }

  depends_on = [module.nats, module.alb]
}

module "archiver" {
  source             = "../modules/ecs-service"
  name               = "archiver"
  prefix             = local.name
  account_id         = local.account_id
  region             = var.region
  cluster_arn        = aws_ecs_cluster.this.arn
  cluster_name       = aws_ecs_cluster.this.name
  image              = local.image
  repository_arn     = local.repository_arns.platform
  command            = ["archival_worker"]
  cpu                = var.services["archiver"].cpu
  memory             = var.services["archiver"].memory
  cpu_architecture   = var.cpu_architecture
  ports              = [8082]
  scratch_volumes    = { tmp = "/tmp" }
  health_check       = local.python_health_check
  stop_timeout_s     = 40
  subnet_ids         = module.network.task_subnet_ids
  security_group_id  = module.network.security_group_ids["archiver"]
  enable_exec        = var.enable_exec
  log_retention_days = var.log_retention_days
  rollback_alarms    = local.rollback_alarms["archiver"]
  known_ends         = local.known_ends["archiver"]
  companions         = local.companions["archiver"]

  companion_repository_arns = local.companion_repos

  kms_key_arn     = module.encryption.key_arn
  environment     = merge(local.logins["archiver"].users, var.archiver_settings, local.archiver_environment)
  secrets         = local.logins["archiver"].secrets
  secret_arns     = local.server_secret_arns
  task_statements = concat([local.may_report], local.may_export, local.may_write_metrics)

  service = {
    desired = var.services["archiver"].min
    spot    = var.services["archiver"].spot
  }

  scaling = {
    min         = var.services["archiver"].min
    max         = var.services["archiver"].max
    target      = var.services["archiver"].target
    cpu_percent = var.services["archiver"].cpu_percent
    metric = {
      namespace  = local.own_metrics.namespace
      name       = local.own_metrics.consumer_lag
      statistic  = "Average"
      dimensions = { Service = local.own_metrics.services.archiver }
    }
  }

  depends_on = [module.nats]
}

# `migrate` before the first start and before each version with new migrations, and `login`. It owns the tables and makes the logins of the
# services, so it has their passwords; at Redis and NATS it has no business.
module "one_shot" {
  source             = "../modules/ecs-service"
  name               = "one-shot"
  prefix             = local.name
  account_id         = local.account_id
  region             = var.region
  cluster_arn        = aws_ecs_cluster.this.arn
  cluster_name       = aws_ecs_cluster.this.name
  image              = local.image
  repository_arn     = local.repository_arns.platform
  command            = ["migrate"]
  cpu                = var.services["archiver"].cpu
  memory             = var.services["archiver"].memory
  cpu_architecture   = var.cpu_architecture
  scratch_volumes    = { tmp = "/tmp" }
  stop_timeout_s     = 40
  subnet_ids         = module.network.task_subnet_ids
  security_group_id  = module.network.security_group_ids["archiver"]
  enable_exec        = false
  log_retention_days = var.log_retention_days
  kms_key_arn        = module.encryption.key_arn
  environment        = local.tables_environment
  secrets            = merge(local.owner_secrets, local.login_secrets)
  secret_arns        = concat(local.server_secret_arns, [module.postgres.secret_arn])
  task_statements    = []
}

# Every other command that is run by hand, `recover` after a loss of Redis among them: as the account `operator` of shared/permissions, at
# all three servers. It neither owns the tables nor wipes a server.
module "operator" {
  source         = "../modules/ecs-service"
  name           = "operator"
  prefix         = local.name
  account_id     = local.account_id
  region         = var.region
  cluster_arn    = aws_ecs_cluster.this.arn
  cluster_name   = aws_ecs_cluster.this.name
  image          = local.image
  repository_arn = local.repository_arns.platform
  # By default it changes nothing: whoever runs it names the command.
  command            = ["recover", "--dry-run"]
  cpu                = var.services["archiver"].cpu
  memory             = var.services["archiver"].memory
  cpu_architecture   = var.cpu_architecture
  scratch_volumes    = { tmp = "/tmp" }
  stop_timeout_s     = 40
  subnet_ids         = module.network.task_subnet_ids
  security_group_id  = module.network.security_group_ids["archiver"]
  enable_exec        = false
  log_retention_days = var.log_retention_days
  kms_key_arn        = module.encryption.key_arn
  environment        = merge(local.logins["operator"].users, local.archiver_environment, local.api_key_instants)
  secrets            = merge(local.logins["operator"].secrets, local.api_key_references)
  secret_arns        = concat(local.server_secret_arns, local.api_key_secret_arns)
  task_statements    = [local.may_report]
}
