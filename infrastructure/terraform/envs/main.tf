# What every environment consists of. dev/ and prod/ are the root modules: they call this one with their sizes.

data "aws_caller_identity" "current" {}

locals {
  name       = "${var.project}-${var.environment}"
  account_id = data.aws_caller_identity.current.account_id
  zones      = [for letter in var.zones : "${var.region}${letter}"]
  registry   = "${local.account_id}.dkr.ecr.${var.region}.amazonaws.com"
  image      = "${local.registry}/${var.project}:${var.image_tag}"
  nats_image = "${local.registry}/${var.project}-nats:${var.nats_image_tag}"

  repository_arns = {
    platform  = "arn:aws:ecr:${var.region}:${local.account_id}:repository/${var.project}"
    nats      = "arn:aws:ecr:${var.region}:${local.account_id}:repository/${var.project}-nats"
    collector = "arn:aws:ecr:${var.region}:${local.account_id}:repository/${var.project}-collector"
  }

  # Images, logs, secrets, metrics; and the channel of `execute-command`, which costs as much as each of the others.
  endpoint_services = concat(["ecr.api", "ecr.dkr", "logs", "secretsmanager", "monitoring"], var.enable_exec ? ["ssmmessages"] : [])

  # In dev a deleted secret is gone at once, so that its name is free for the next apply.
  secret_recovery_days = var.protect ? 30 : 0
}

module "encryption" {
  source     = "../modules/encryption"
  name       = local.name
  account_id = local.account_id
  region     = var.region
}

module "storage" {
  source           = "../modules/storage"
  name             = local.name
  account_id       = local.account_id
  kms_key_arn      = module.encryption.key_arn
  log_days         = var.log_retention_days
  object_lock_days = var.object_lock_days
  force_destroy    = !var.protect
}

module "network" {
  source              = "../modules/network"
  name                = local.name
  region              = var.region
  cidr                = var.cidr
  zones               = local.zones
  endpoint_zones      = var.endpoint_zones
  endpoint_services   = local.endpoint_services
  alb_ingress_cidrs   = var.alb_ingress_cidrs
  flow_logs           = var.flow_logs
  flow_log_bucket_arn = module.storage.log_bucket_arn
  writable_bucket_arn = module.storage.exports_bucket_arn

  read_cache           = var.cache_node_enabled
  front_end_behind_alb = local.front_end_on_alb
  front_end_clients    = var.cache_front_end == "internal" ? var.cache_front_end_clients : []
}

module "alb" {
  source               = "../modules/alb"
  name                 = local.name
  vpc_id               = module.network.vpc_id
  public_subnet_ids    = module.network.public_subnet_ids
  security_group_id    = module.network.security_group_ids["alb"]
  log_bucket           = module.storage.log_bucket
  log_retention_days   = var.log_retention_days
  kms_key_arn          = module.encryption.key_arn
  domain_name          = var.domain_name
  certificate_arn      = var.certificate_arn
  hosted_zone_id       = var.hosted_zone_id
  operator_cidrs       = var.operator_cidrs
  with_tokens          = local.with_tokens
  requests_per_address = var.requests_per_address
  proxy_cidrs          = var.proxy_cidrs
  requests_per_proxy   = var.requests_per_proxy
  deletion_protection  = var.protect
  front_end            = local.front_end_on_alb
}

module "redis" {
  source               = "../modules/redis"
  name                 = local.name
  engine               = var.redis_engine
  node_type            = var.redis_node_type
  shards               = var.redis_shards
  replicas             = var.redis_replicas
  subnet_ids           = module.network.data_subnet_ids
  security_group_id    = module.network.security_group_ids["redis"]
  kms_key_arn          = module.encryption.key_arn
  snapshot_days        = var.snapshot_days
  final_snapshot       = var.protect
  secret_recovery_days = local.secret_recovery_days
  passwords            = local.redis_passwords
  former_account       = var.redis_former_account
}

module "postgres" {
  source              = "../modules/postgres"
  name                = local.name
  instance_class      = var.postgres_instance_class
  multi_az            = var.postgres_multi_az
  storage_gb          = var.postgres_storage_gb
  storage_gb_max      = var.postgres_storage_gb_max
  backup_days         = var.postgres_backup_days
  rotation_days       = var.postgres_rotation_days
  deletion_protection = var.protect
  subnet_ids          = module.network.data_subnet_ids
  security_group_id   = module.network.security_group_ids["postgres"]
  kms_key_arn         = module.encryption.key_arn
  log_retention_days  = var.log_retention_days
}

module "nats" {
  source                 = "../modules/nats"
  prefix                 = local.name
  account_id             = local.account_id
  region                 = var.region
  cluster_arn            = aws_ecs_cluster.this.arn
  cluster_name           = aws_ecs_cluster.this.name
  image                  = local.nats_image
  repository_arn         = local.repository_arns.nats
  servers                = var.nats_servers
  cpu                    = var.nats_cpu
  memory                 = var.nats_memory
  cpu_architecture       = var.cpu_architecture
  ephemeral_storage_gib  = var.nats_storage_gib
  keep_disks             = var.nats_keep_disks
  disk_security_group_id = module.network.security_group_ids["nats-disk"]
  account_passwords      = local.login_secrets
  account_secret_arn     = aws_secretsmanager_secret_version.accounts.arn
  dns_namespace_id       = aws_service_discovery_private_dns_namespace.this.id
  dns_namespace          = aws_service_discovery_private_dns_namespace.this.name
  subnet_ids             = module.network.task_subnet_ids
  security_group_id      = module.network.security_group_ids["nats"]
  enable_exec            = var.enable_exec
  log_retention_days     = var.log_retention_days
  kms_key_arn            = module.encryption.key_arn
  secret_recovery_days   = local.secret_recovery_days

  # Without its endpoints a task can neither pull its image nor write its log.
  depends_on = [module.network, aws_ecs_cluster_capacity_providers.this]
}

module "observability" {
  source                = "../modules/observability"
  name                  = local.name
  environment           = var.environment
  account_id            = local.account_id
  region                = var.region
  kms_key_arn           = module.encryption.key_arn
  alarm_emails          = var.alarm_emails
  budget_usd            = var.budget_usd
  alb_arn_suffix        = module.alb.arn_suffix
  target_group_suffixes = module.alb.target_group_suffixes
  web_acl_name          = module.alb.web_acl_name
  cluster_name          = aws_ecs_cluster.this.name
  service_names         = local.service_names
  scrapes               = local.scrapes
  cache_panels          = flatten(module.cache_alarms[*].panels)
  redis_node_ids        = module.redis.node_ids
  memorydb_cluster      = var.redis_engine == "memorydb" ? local.name : null
  postgres_identifier   = module.postgres.identifier
  own_metrics           = local.own_metrics

  limits = {
    outbox_entries    = 5000
    consumer_lag      = 20000
    connections       = var.services["broadcaster"].target * 1.5
    errors_per_minute = 10
    p99_s             = 0.5
    # RDS enlarges the disk when only a tenth of it is free. If less is free, the disk has reached its bound.
    free_storage_bytes = floor(var.postgres_storage_gb * 0.08 * 1024) * 1024 * 1024
  }
}
