# From left to right, from top to bottom: bids, outbox, relay, viewers, archive, and what AWS itself counts.

locals {
  gateway     = var.own_metrics.services["gateway"]
  broadcaster = var.own_metrics.services["broadcaster"]
  archiver    = var.own_metrics.services["archiver"]

  # The same panels as in infrastructure/docker/grafana, by the same titles; a test compares them. Some of their lines come from
  # /metrics: without a collector those are left out, and a panel that has no others is too.
  own = { for name, metric in {
    decided      = [var.own_metrics.decided, local.gateway]
    shed         = [var.own_metrics.shed, local.gateway]
    outbox_all   = [var.own_metrics.outbox_all, local.gateway]
    outbox       = [var.own_metrics.outbox, local.gateway]
    connections  = [var.own_metrics.connections, local.broadcaster]
    frames       = [var.own_metrics.frames, local.broadcaster]
    frame_time   = [var.own_metrics.frame_time, local.broadcaster]
    lag          = [var.own_metrics.consumer_lag, local.archiver]
    dead_letters = [var.own_metrics.dead_letters, local.archiver]
    commit_time  = [var.own_metrics.commit_time, local.archiver]
    shards_lost  = [var.own_metrics.shards_lost, local.gateway]
    items_lost   = [var.own_metrics.items_lost, local.gateway]
  } : name => [var.own_metrics.namespace, metric[0], "Service", metric[1]] }

  scraped = { for name, metric in {
    flushes       = ["bidding_flushes_total", local.gateway]
    waiting       = ["bidding_bids_waiting", local.gateway]
    relayed       = ["bidding_relay_entries_total", local.gateway]
    relay_fails   = ["bidding_relay_failures_total", local.gateway]
    subscriptions = ["feed_subscriptions", local.broadcaster]
    queued        = ["feed_frames_queued_total", local.broadcaster]
    exports_open  = ["archiver_exports_open", local.archiver]
    shard_alarms  = ["archiver_shard_alarms", local.archiver]
    chain_alarms  = ["archiver_chain_alarms", local.archiver]
    export_alarms = ["archiver_export_alarms", local.archiver]
    former_epochs = ["archiver_former_epochs_stored", local.archiver]
  } : name => [var.own_metrics.namespace, metric[0], "Service", metric[1]] if var.scrapes }

  # What a panel draws of `scraped`; nothing without a collector. Counters are summed over tasks; of gauges the largest one is drawn.
  of_scraped = { for name, metric in {
    waiting      = "Maximum", relayed = "Sum", relay_fails = "Sum", subscriptions = "Maximum", queued = "Sum", exports_open = "Maximum"
    shard_alarms = "Maximum", chain_alarms = "Maximum", export_alarms = "Maximum", former_epochs = "Maximum"
  } : name => [for each in [try(local.scraped[name], null)] : concat(each, [{ stat = metric }]) if each != null] }

  bids_per_trip = [for line in [
    concat(local.own.decided, [{ id = "bids", stat = "Sum", visible = false }]),
    concat(try(local.scraped.flushes, []), [{ id = "trips", stat = "Sum", visible = false }]),
    [{ expression = "bids / trips", label = "bids per round trip", id = "ratio" }],
  ] : line if var.scrapes]

  panels = [for panel in [
    { title = "Bids decided", statistic = "Sum", lines = [local.own.decided, local.own.shed] },
    { title = "Bids per round trip to Redis", statistic = "Maximum", lines = concat(local.bids_per_trip, local.of_scraped.waiting) },
    { title = "Outbox", statistic = "Maximum", lines = [local.own.outbox_all, local.own.outbox] },
    { title = "Relay", statistic = "Sum", lines = concat(local.of_scraped.relayed, local.of_scraped.relay_fails) },
    { title = "Viewers", statistic = "Average", lines = concat([concat(local.own.connections, [{ label = "per broadcaster" }])], local.of_scraped.subscriptions) },
    { title = "Decision to frame", statistic = "p99", lines = [concat(local.own.frame_time, [{ stat = "p50", label = "p50 (s)" }]), concat(local.own.frame_time, [{ stat = "p99", label = "p99 (s)" }])] },
    { title = "Frames", statistic = "Sum", lines = concat([local.own.frames], local.of_scraped.queued) },
    { title = "Archive", statistic = "Maximum", lines = concat([local.own.lag, local.own.dead_letters], local.of_scraped.exports_open) },
    { title = "Commit in PostgreSQL", statistic = "p99", lines = [concat(local.own.commit_time, [{ stat = "p50", label = "p50 (s)" }]), concat(local.own.commit_time, [{ stat = "p99", label = "p99 (s)" }])] },
    { title = "Alarms", statistic = "Maximum", lines = concat([local.own.shards_lost, local.own.items_lost], local.of_scraped.shard_alarms, local.of_scraped.chain_alarms, local.of_scraped.export_alarms, local.of_scraped.former_epochs) },
    # And what AWS tells besides.
    { title = "Requests per minute", statistic = "Sum", lines = [["AWS/ApplicationELB", "RequestCount", "LoadBalancer", var.alb_arn_suffix]] },
    { title = "Answers 5xx", statistic = "Sum", lines = [["AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", "LoadBalancer", var.alb_arn_suffix], ["AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", "LoadBalancer", var.alb_arn_suffix]] },
    { title = "Gateway p99 (s)", statistic = "p99", lines = [["AWS/ApplicationELB", "TargetResponseTime", "TargetGroup", var.target_group_suffixes["gateway"], "LoadBalancer", var.alb_arn_suffix]] },
    { title = "Redis: CPU of its thread, memory (%)", statistic = "Maximum", lines = concat(
      [for id in var.redis_node_ids : ["AWS/ElastiCache", "EngineCPUUtilization", "CacheClusterId", id]],
      [for id in var.redis_node_ids : ["AWS/ElastiCache", "DatabaseMemoryUsagePercentage", "CacheClusterId", id]],
      var.memorydb_cluster == null ? [] : [for metric in ["EngineCPUUtilization", "DatabaseMemoryUsagePercentage"] : ["AWS/MemoryDB", metric, "ClusterName", var.memorydb_cluster]],
    ) },
    { title = "PostgreSQL CPU (%)", statistic = "Average", lines = [["AWS/RDS", "CPUUtilization", "DBInstanceIdentifier", var.postgres_identifier]] },
    { title = "CPU of the services (%)", statistic = "Average", lines = [for service in var.service_names : ["AWS/ECS", "CPUUtilization", "ClusterName", var.cluster_name, "ServiceName", service]] },
  ] : jsonencode(panel) if length(panel.lines) > 0]
}

locals {
  # Each as JSON, because no two have the same shape.
  all_panels = concat(local.panels, var.cache_panels)
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for index, panel in [for each in local.all_panels : jsondecode(each)] : {
      type   = "metric"
      x      = (index % 3) * 8
      y      = floor(index / 3) * 6
      width  = 8
      height = 6
      properties = {
        title   = panel.title
        region  = var.region
        stat    = panel.statistic
        period  = 60
        view    = "timeSeries"
        metrics = panel.lines
      }
    }]
  })
}
