# The read cache: nodes that share the keys, and front ends that answer `/api`. Only with cache_node_enabled.
#
# Who is in the ring is agreed through NATS (docs/decisions/0048). Nodes are in Cloud Map besides, as cache.bidding-dev.internal or
# alike, for people and for programs that look addresses up; no node decides anything by it. Membership by Cloud Map alone would need its
# endpoint, the right to ask it, and a port in what ECS registers, and would agree on nothing.

locals {
  cache_count      = var.cache_node_enabled ? 1 : 0
  front_end_on_alb = var.cache_node_enabled && var.cache_front_end == "alb"

  # Neither talks to Redis: no address, no password, no way there.
  cache_environment = merge(local.logins["cache"].users, local.addresses_without_redis, {
    POSTGRES_URL = module.postgres.url
    AUTH_MODE    = var.auth_mode
  }, local.alias_instants)
  cache_secrets     = merge(local.logins["cache"].secrets, local.alias_references)
  cache_secret_arns = [aws_secretsmanager_secret_version.accounts.arn, aws_secretsmanager_secret_version.application.arn]

  # One program in two roles, by their names.
  cache_programs = { for role, program in {
    node = {
      name             = "cache-node"
      port             = 8001
      metric           = local.cache_metrics.served
      registry_arn     = one(aws_service_discovery_service.cache[*].arn)
      target_group_arn = null
      # Half of the task's memory: the process itself, and what is under way, have the other half.
      environment = { READ_CACHE_BYTES_MAX = tostring(var.cache_services["node"].memory / 2 * 1024 * 1024) }
    }
    front_end = {
      name             = "cache-front-end"
      port             = 9999
      metric           = local.cache_metrics.gets
      registry_arn     = one(aws_service_discovery_service.front_end[*].arn)
      target_group_arn = local.front_end_on_alb ? module.alb.target_group_arns["front-end"] : null
      environment      = {}
    }
  } : role => program if var.cache_node_enabled }

  # What processes with a cache report: cache_node/figures.py, and gateways.
  cache_metrics = {
    namespace  = local.own_metrics.namespace
    services   = { gateway = local.own_metrics.services.gateway, node = "cache_node", front_end = "cache_front_end" }
    gets       = "CacheGets"
    loads      = "CacheLoads"
    shed       = "CacheShed"
    seconds    = "CacheGetSeconds"
    served     = "CacheServed"
    evictions  = "CacheEvictions"
    bytes      = "CacheBytes"
    ring_nodes = "CacheRingNodes"
    keeping    = "CacheKeeping"
  }
}

module "cache" {
  source             = "../modules/ecs-service"
  for_each           = local.cache_programs
  name               = each.value.name
  prefix             = local.name
  account_id         = local.account_id
  region             = var.region
  cluster_arn        = aws_ecs_cluster.this.arn
  cluster_name       = aws_ecs_cluster.this.name
  image              = local.image
  repository_arn     = local.repository_arns.platform
  command            = ["cache_node"]
  cpu                = var.cache_services[each.key].cpu
  memory             = var.cache_services[each.key].memory
  cpu_architecture   = var.cpu_architecture
  ports              = [each.value.port]
  scratch_volumes    = { tmp = "/tmp" }
  health_check       = local.python_health_check
  stop_timeout_s     = 30
  subnet_ids         = module.network.task_subnet_ids
  security_group_id  = module.network.security_group_ids[each.value.name]
  enable_exec        = var.enable_exec
  log_retention_days = var.log_retention_days
  kms_key_arn        = module.encryption.key_arn
  secrets            = local.cache_secrets
  secret_arns        = local.cache_secret_arns
  task_statements    = concat([local.may_report], local.may_write_metrics)
  companions         = local.companions[each.key]

  companion_repository_arns = local.companion_repos

  environment = merge(local.cache_environment, each.value.environment, {
    CACHE_ROLE           = each.key
    READ_CACHE_LOADS_MAX = tostring(var.cache_services[each.key].loads_max)
  })

  service = {
    desired          = var.cache_services[each.key].min
    spot             = var.cache_services[each.key].spot
    on_demand_base   = var.cache_services[each.key].on_demand_base
    target_group_arn = each.value.target_group_arn
    registry_arn     = each.value.registry_arn
  }

  scaling = {
    min         = var.cache_services[each.key].min
    max         = var.cache_services[each.key].max
    target      = var.cache_services[each.key].target
    cpu_percent = var.cache_services[each.key].cpu_percent
    metric = {
      namespace  = local.cache_metrics.namespace
      name       = each.value.metric
      statistic  = "Average"
      dimensions = { Service = local.cache_metrics.services[each.key] }
    }
  }

  # Without NATS there is no ring.
  depends_on = [module.nats, module.alb]
}

resource "aws_service_discovery_service" "cache" {
  count = local.cache_count
  name  = "cache"

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.this.id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 5
    }
  }
}

# A service of its own: what is registered beside nodes would be taken for one.
resource "aws_service_discovery_service" "front_end" {
  count = var.cache_node_enabled && !local.front_end_on_alb ? 1 : 0
  name  = "cache-front-end"

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.this.id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 5
    }
  }
}

module "cache_alarms" {
  source    = "../modules/cache-alarms"
  count     = local.cache_count
  name      = local.name
  topic_arn = module.observability.topic_arn
  metrics   = local.cache_metrics
  scrapes   = local.scrapes
  limits    = merge(var.cache_limits, { nodes = var.cache_services["node"].min })
}
