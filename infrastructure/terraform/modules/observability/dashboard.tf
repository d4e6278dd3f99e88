# From left to right, from top to bottom, the way of a bid: balancer, gateway, Redis, outbox, NATS, archive, viewers.

locals {
  panels = [
    { title = "Requests per minute", statistic = "Sum", lines = [["AWS/ApplicationELB", "RequestCount", "LoadBalancer", var.alb_arn_suffix]] },
    { title = "Answers 5xx", statistic = "Sum", lines = [["AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", "LoadBalancer", var.alb_arn_suffix], ["AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", "LoadBalancer", var.alb_arn_suffix]] },
    { title = "Gateway p99 (s)", statistic = "p99", lines = [["AWS/ApplicationELB", "TargetResponseTime", "TargetGroup", var.target_group_suffixes["gateway"], "LoadBalancer", var.alb_arn_suffix]] },
    { title = "Longest outbox (entries), archive lag (messages)", statistic = "Maximum", lines = [[var.own_metrics.namespace, var.own_metrics.outbox, "Service", var.own_metrics.services["gateway"]], [var.own_metrics.namespace, var.own_metrics.consumer_lag, "Service", var.own_metrics.services["archiver"]]] },
    { title = "Viewers per broadcaster", statistic = "Average", lines = [[var.own_metrics.namespace, var.own_metrics.connections, "Service", var.own_metrics.services["broadcaster"]]] },
    { title = "Shards lost, dead letters", statistic = "Maximum", lines = [[var.own_metrics.namespace, var.own_metrics.shards_lost, "Service", var.own_metrics.services["gateway"]], [var.own_metrics.namespace, var.own_metrics.dead_letters, "Service", var.own_metrics.services["archiver"]]] },
    { title = "Redis: CPU of its thread, memory (%)", statistic = "Maximum", lines = concat(
      [for id in var.redis_node_ids : ["AWS/ElastiCache", "EngineCPUUtilization", "CacheClusterId", id]],
      [for id in var.redis_node_ids : ["AWS/ElastiCache", "DatabaseMemoryUsagePercentage", "CacheClusterId", id]],
      var.memorydb_cluster == null ? [] : [for metric in ["EngineCPUUtilization", "DatabaseMemoryUsagePercentage"] : ["AWS/MemoryDB", metric, "ClusterName", var.memorydb_cluster]],
    ) },
    { title = "PostgreSQL CPU (%)", statistic = "Average", lines = [["AWS/RDS", "CPUUtilization", "DBInstanceIdentifier", var.postgres_identifier]] },
    { title = "CPU of the services (%)", statistic = "Average", lines = [for service in var.service_names : ["AWS/ECS", "CPUUtilization", "ClusterName", var.cluster_name, "ServiceName", service]] },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for index, panel in local.panels : {
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
