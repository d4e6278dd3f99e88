# Alarms that take a deployment back, and tasks for auctions whose end is known.

locals {
  # Alarms that take a deployment of a service back. They are made before the services: modules/observability looks at no service
  # but by its name.
  rollback_alarms = { for service, keys in {
    gateway     = ["gateway-5xx", "gateway-p99", "gateway-unhealthy", "shards-lost", "items-lost"]
    broadcaster = ["feed-unhealthy"]
    archiver    = ["dead-letters"]
  } : service => [for key in keys : module.observability.alarm_name[key]] }

  # How long before an end the tasks are there, and how long after it they stay: soft closes move it.
  known_ends = { for service in ["gateway", "broadcaster", "archiver"] : service => {
    for name, end in var.known_ends : name => {
      begins = timeadd(end.at, "-${end.minutes_before}m")
      ends   = timeadd(end.at, "${end.minutes_after}m")
      min    = end.tasks[service]
    } if contains(keys(end.tasks), service)
  } }

  # The services' names at ECS; written out, so that the alarms on them wait for no service.
  service_names = concat(
    ["gateway", "broadcaster", "archiver"],
    [for index in range(var.nats_servers) : "nats-${index}"],
    [for program in values(local.cache_programs) : program.name],
  )
}

# In prod nothing of this is destroyed, or made anew, by an apply.
module "guard" {
  source  = "../modules/guard"
  protect = var.protect

  ids = merge(
    {
      "ECS cluster"         = aws_ecs_cluster.this.id
      "gateway service"     = module.gateway.service_id
      "broadcaster service" = module.broadcaster.service_id
      "archiver service"    = module.archiver.service_id
      "Redis"               = module.redis.id
      "PostgreSQL"          = module.postgres.id
      "exports"             = module.storage.exports_bucket_arn
    },
    module.nats.protected_ids,
  )
}
