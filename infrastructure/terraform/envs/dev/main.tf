# The root module of dev. What it consists of is in ../*.tf; here are its provider, its state and its fixed choices.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }

  # The rest comes from backend.hcl: terraform init -backend-config=backend.hcl. See ../../bootstrap.
  backend "s3" {
    key          = "dev/terraform.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project     = var.project
      Environment = "dev"
      ManagedBy   = "terraform"
    }
  }

  # `bidding deploy` writes down there how far it is.
  ignore_tags {
    key_prefixes = ["bidding:"]
  }
}

module "environment" {
  source = "../../envs"

  environment       = "dev"
  postgres_multi_az = false
  protect           = false

  region                  = var.region
  project                 = var.project
  domain_name             = var.domain_name
  certificate_arn         = var.certificate_arn
  hosted_zone_id          = var.hosted_zone_id
  alb_ingress_cidrs       = var.alb_ingress_cidrs
  operator_cidrs          = var.operator_cidrs
  requests_per_address    = var.requests_per_address
  proxy_cidrs             = var.proxy_cidrs
  requests_per_proxy      = var.requests_per_proxy
  auth_mode               = var.auth_mode
  auth_issuer             = var.auth_issuer
  auth_audience           = var.auth_audience
  auth_jwks               = var.auth_jwks
  auth_leeway_s           = var.auth_leeway_s
  api_keys                = var.api_keys
  auth_signing_key_arn    = var.auth_signing_key_arn
  secrets_since           = var.secrets_since
  redis_two_passwords     = var.redis_two_passwords
  redis_former_account    = var.redis_former_account
  postgres_ca             = var.postgres_ca
  collector_image_tag     = var.collector_image_tag
  known_ends              = var.known_ends
  image_tag               = var.image_tag
  nats_image_tag          = var.nats_image_tag
  cpu_architecture        = var.cpu_architecture
  cidr                    = var.cidr
  zones                   = var.zones
  endpoint_zones          = var.endpoint_zones
  services                = var.services
  redis_engine            = var.redis_engine
  redis_node_type         = var.redis_node_type
  redis_shards            = var.redis_shards
  redis_replicas          = var.redis_replicas
  bid_ack                 = var.bid_ack
  snapshot_days           = var.snapshot_days
  postgres_instance_class = var.postgres_instance_class
  postgres_storage_gb     = var.postgres_storage_gb
  postgres_storage_gb_max = var.postgres_storage_gb_max
  postgres_backup_days    = var.postgres_backup_days
  postgres_rotation_days  = var.postgres_rotation_days
  nats_servers            = var.nats_servers
  nats_cpu                = var.nats_cpu
  nats_memory             = var.nats_memory
  nats_keep_disks         = var.nats_keep_disks
  nats_storage_gib        = var.nats_storage_gib
  cache_node_enabled      = var.cache_node_enabled
  cache_services          = var.cache_services
  cache_front_end         = var.cache_front_end
  cache_front_end_clients = var.cache_front_end_clients
  cache_limits            = var.cache_limits
  open_catalogue          = var.open_catalogue
  feed_origins            = var.feed_origins
  gateway_settings        = var.gateway_settings
  broadcaster_settings    = var.broadcaster_settings
  archiver_settings       = var.archiver_settings
  log_level               = var.log_level
  enable_exec             = var.enable_exec
  container_insights      = var.container_insights
  log_retention_days      = var.log_retention_days
  flow_logs               = var.flow_logs
  object_lock_days        = var.object_lock_days
  alarm_emails            = var.alarm_emails
  budget_usd              = var.budget_usd
}
