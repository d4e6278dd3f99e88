# What CloudWatch is told: what the services report themselves, and what the collector beside each of them scrapes from /metrics.
# Alarms and the autoscaler look at the former alone, so that they see even where the collector does not run.

locals {
  # shared/aws/cloudwatch.py.
  own_metrics = {
    namespace    = "Bidding/${var.environment}"
    services     = { gateway = "api_gateway", broadcaster = "broadcast_service", archiver = "archival_worker" }
    outbox       = "OutboxLongest"
    outbox_all   = "OutboxEntries"
    decided      = "BidsDecided"
    shed         = "BidsShed"
    shards_lost  = "ShardsLost"
    items_lost   = "ItemsLost"
    consumer_lag = "ConsumerLag"
    dead_letters = "DeadLetters"
    commit_time  = "WriteSeconds"
    connections  = "Connections"
    frames       = "FramesSent"
    frame_time   = "FeedLatencySeconds"
  }

  # By the service's key in `services`, as its /metrics calls them: what the dashboard shows beside the above.
  scraped_metrics = { for key, names in {
    gateway     = ["bidding_flushes_total", "bidding_bids_waiting", "bidding_relay_entries_total", "bidding_relay_failures_total", "bidding_cache_hits_total", "bidding_cache_fetch_failures_total"]
    broadcaster = ["feed_subscriptions", "feed_frames_queued_total"]
    archiver    = ["archiver_exports_open", "archiver_shard_alarms", "archiver_chain_alarms", "archiver_export_alarms", "archiver_former_epochs_stored"]
    node        = ["cache_hits_total", "cache_served_hits_total", "cache_entries", "cache_too_big_total", "cache_bytes_max", "cache_waiting", "cache_fetch_failures_total", "cache_unsettled", "cache_ring_epoch"]
    front_end   = ["cache_mirror_hits_total", "cache_hits_total", "cache_fetch_failures_total"]
    } : key => [for name in names : name if var.cache_node_enabled || !strcontains(name, "cache_")] if var.cache_node_enabled || !contains(["node", "front_end"], key)
  }

  scraped_services = merge(local.own_metrics.services, { node = local.cache_metrics.services.node, front_end = local.cache_metrics.services.front_end })
  scraped_ports    = { gateway = 8080, broadcaster = 8081, archiver = 8082, node = 9999, front_end = 9999 }
  scraped_groups   = { gateway = "gateway", broadcaster = "broadcaster", archiver = "archiver", node = "cache-node", front_end = "cache-front-end" }
  scrapes          = var.collector_image_tag != null

  # By the same keys: the container beside the service, and what the task needs for it.
  companions      = { for key in keys(local.scraped_metrics) : key => [for each in keys(module.collector) : module.collector[each].container if each == key] }
  companion_repos = local.scrapes ? [local.repository_arns.collector] : []

  may_write_metrics = [for group in aws_cloudwatch_log_group.metrics : jsonencode({
    Sid      = "WriteMetricsAsLines"
    Effect   = "Allow"
    Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    Resource = ["${group.arn}:*"]
  })]
}

resource "aws_cloudwatch_log_group" "metrics" {
  #checkov:skip=CKV_AWS_338:CloudWatch keeps the metrics for 15 months; the lines that they were made of are of no use
  count             = local.scrapes ? 1 : 0
  name              = "/${local.name}/metrics"
  retention_in_days = 1
  kms_key_id        = module.encryption.key_arn
}

module "collector" {
  source            = "../modules/collector"
  for_each          = { for key, names in local.scraped_metrics : key => names if local.scrapes }
  service           = local.scraped_services[each.key]
  port              = local.scraped_ports[each.key]
  metrics           = each.value
  image             = "${local.registry}/${var.project}-collector:${var.collector_image_tag}"
  region            = var.region
  namespace         = local.own_metrics.namespace
  log_group         = one(aws_cloudwatch_log_group.metrics[*].name)
  service_log_group = "/${local.name}/${local.scraped_groups[each.key]}"
}
