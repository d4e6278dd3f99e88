# One line per alarm. What to do about each is in docs/operations.md under "Alarms".

locals {
  gateway_targets = { LoadBalancer = var.alb_arn_suffix, TargetGroup = var.target_group_suffixes["gateway"] }
  feed_targets    = { LoadBalancer = var.alb_arn_suffix, TargetGroup = var.target_group_suffixes["broadcaster"] }
  balancer        = { LoadBalancer = var.alb_arn_suffix }
  database        = { DBInstanceIdentifier = var.postgres_identifier }

  # The services' own figures; shared/aws/cloudwatch.py reports them. Each is expected every minute, and one of each service rings
  # where it stops coming. Alarms that take a deployment back do not ring in silence: at the first apply, before the first task has
  # reported, they would ring and fail it, and each late figure would take a good version back.
  own_alarms = {
    outbox        = { service = "gateway", takes_back = false, metric = var.own_metrics.outbox, threshold = var.limits.outbox_entries, minutes = 5, meaning = "Events wait in the outbox: the archive or NATS is behind. Bids are refused at 50,000 per shard." }
    shards-lost   = { service = "gateway", takes_back = true, metric = var.own_metrics.shards_lost, threshold = 0, minutes = 1, meaning = "Redis has lost shards; their bids are refused. Run recover." }
    items-lost    = { service = "gateway", takes_back = true, metric = var.own_metrics.items_lost, threshold = 0, minutes = 1, meaning = "Redis has lost single items; their bids are refused. Run recover --item." }
    consumer-lag  = { service = "archiver", takes_back = false, metric = var.own_metrics.consumer_lag, threshold = var.limits.consumer_lag, minutes = 10, meaning = "The archival worker cannot keep up, or PostgreSQL is slow." }
    dead-letters  = { service = "archiver", takes_back = true, metric = var.own_metrics.dead_letters, threshold = 0, minutes = 1, meaning = "An event could not be stored. List and retry the dead letters." }
    feed-capacity = { service = "broadcaster", takes_back = false, metric = var.own_metrics.connections, threshold = var.limits.connections, minutes = 5, meaning = "A broadcaster is nearly full; the autoscaler is behind or at its bound." }
  }

  aws_alarms = merge(
    {
      gateway-5xx         = { namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.gateway_targets, statistic = "Sum", threshold = var.limits.errors_per_minute, minutes = 5, below = false, meaning = "The gateway answers 5xx: Redis is away, or bids are shed." }
      balancer-5xx        = { namespace = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = local.balancer, statistic = "Sum", threshold = var.limits.errors_per_minute, minutes = 5, below = false, meaning = "The load balancer found no target or lost it." }
      gateway-p99         = { namespace = "AWS/ApplicationELB", metric = "TargetResponseTime", dimensions = local.gateway_targets, statistic = "p99", threshold = var.limits.p99_s, minutes = 5, below = false, meaning = "One answer in a hundred is slow." }
      gateway-unhealthy   = { namespace = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = local.gateway_targets, statistic = "Maximum", threshold = 0, minutes = 5, below = false, meaning = "A gateway fails its health check." }
      feed-unhealthy      = { namespace = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = local.feed_targets, statistic = "Maximum", threshold = 0, minutes = 5, below = false, meaning = "A broadcaster fails its health check." }
      postgres-cpu        = { namespace = "AWS/RDS", metric = "CPUUtilization", dimensions = local.database, statistic = "Average", threshold = 80, minutes = 15, below = false, meaning = "PostgreSQL is busy; archiving will fall behind." }
      postgres-storage    = { namespace = "AWS/RDS", metric = "FreeStorageSpace", dimensions = local.database, statistic = "Minimum", threshold = var.limits.free_storage_bytes, minutes = 5, below = true, meaning = "The disk of PostgreSQL fills up, and its automatic growth is at the bound." }
      postgres-memory     = { namespace = "AWS/RDS", metric = "FreeableMemory", dimensions = local.database, statistic = "Minimum", threshold = 100 * 1024 * 1024, minutes = 15, below = true, meaning = "PostgreSQL runs out of memory." }
      firewall-block-rate = { namespace = "AWS/WAFV2", metric = "BlockedRequests", dimensions = { WebACL = var.web_acl_name, Region = var.region, Rule = "${var.name}-requests-per-address" }, statistic = "Sum", threshold = 1000, minutes = 5, below = false, meaning = "An address sends more requests than it may." }
    },
    { for id in var.redis_node_ids : "redis-memory-${id}" => { namespace = "AWS/ElastiCache", metric = "DatabaseMemoryUsagePercentage", dimensions = { CacheClusterId = id }, statistic = "Maximum", threshold = 70, minutes = 5, below = false, meaning = "Redis fills up. When it is full it refuses bids." } },
    { for id in var.redis_node_ids : "redis-cpu-${id}" => { namespace = "AWS/ElastiCache", metric = "EngineCPUUtilization", dimensions = { CacheClusterId = id }, statistic = "Average", threshold = 80, minutes = 5, below = false, meaning = "Redis' one thread is busy: it is what decides bids." } },
    var.memorydb_cluster == null ? {} : {
      redis-memory = { namespace = "AWS/MemoryDB", metric = "DatabaseMemoryUsagePercentage", dimensions = { ClusterName = var.memorydb_cluster }, statistic = "Maximum", threshold = 70, minutes = 5, below = false, meaning = "MemoryDB fills up. When it is full it refuses bids." }
      redis-cpu    = { namespace = "AWS/MemoryDB", metric = "EngineCPUUtilization", dimensions = { ClusterName = var.memorydb_cluster }, statistic = "Average", threshold = 80, minutes = 5, below = false, meaning = "MemoryDB's one thread is busy: it is what decides bids." }
    },
    { for group, suffix in var.target_group_suffixes : "front-end-unhealthy" => { namespace = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = { LoadBalancer = var.alb_arn_suffix, TargetGroup = suffix }, statistic = "Maximum", threshold = 0, minutes = 5, below = false, meaning = "A front end of the read cache fails its health check." } if group == "front-end" },
    { for service in var.service_names : "cpu-${service}" => { namespace = "AWS/ECS", metric = "CPUUtilization", dimensions = { ClusterName = var.cluster_name, ServiceName = service }, statistic = "Average", threshold = 85, minutes = 10, below = false, meaning = "The tasks of ${service} are busy." } },
  )

  alarms = merge(
    { for name, each in local.aws_alarms : name => merge(each, { missing = "notBreaching" }) },
    { for name, each in local.own_alarms : name => merge(each, {
      namespace  = var.own_metrics.namespace
      dimensions = { Service = var.own_metrics.services[each.service] }
      statistic  = "Maximum"
      below      = false
      missing    = each.takes_back ? "ignore" : "breaching"
    }) },
  )
}
