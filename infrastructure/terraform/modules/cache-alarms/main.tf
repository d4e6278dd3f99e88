# What wakes somebody up about the read cache. What to do about each is in docs/operations.md under "Alarms".
#
# A hit rate is told from sums over all processes that read through the cache. A node does not see what its readers mirror, and
# a reader does not see what a node loads for it.

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
  readers = var.metrics.services

  # Ids in an expression begin with a small letter.
  sums = { for figure in ["gets", "loads"] : figure => concat(
    [for reader, service in local.readers : { id = "${figure}_${reader}", service = service, name = var.metrics[figure], statistic = "Sum", expression = null }],
    # A service without a task reports nothing, and the others still count.
    [{ id = figure, service = null, name = null, statistic = null, expression = join(" + ", [for reader in keys(local.readers) : "FILL(${figure}_${reader}, 0)"]) }],
  ) }

  # Few gets say nothing of a rate. Both halves are 1 then, so that nothing is divided by 0.
  enough   = "gets >= ${var.limits.gets}"
  hit_rate = "IF(${local.enough}, gets - loads, 1) / IF(${local.enough}, gets, 1)"

  front_end = [
    { id = "gets", service = local.readers.front_end, name = var.metrics.gets, statistic = "Sum", expression = null },
    { id = "seconds", service = local.readers.front_end, name = var.metrics.seconds, statistic = "p99", expression = null },
  ]

  # `queries` of which the last one is compared with the threshold.
  alarms = {
    cache-hit-rate = {
      below     = true
      threshold = var.limits.hit_rate
      minutes   = var.limits.hit_rate_minutes
      missing   = "notBreaching"
      queries   = concat(local.sums.gets, local.sums.loads, [{ id = "hit_rate", service = null, name = null, statistic = null, expression = local.hit_rate }])
      meaning   = "Too many gets of closed items are questions to PostgreSQL."
    }
    cache-p99 = {
      below     = false
      threshold = var.limits.p99_s
      minutes   = 5
      missing   = "notBreaching"
      queries   = concat(local.front_end, [{ id = "slow", service = null, name = null, statistic = null, expression = "IF(${local.enough}, seconds, 0)" }])
      meaning   = "One get in a hundred at the front ends is slow."
    }
    cache-questions = {
      below     = false
      threshold = var.limits.questions
      minutes   = 5
      missing   = "notBreaching"
      queries   = local.sums.loads
      meaning   = "The read cache asks PostgreSQL more than it should."
    }
    # What nodes report about themselves is expected every minute: silence is an alarm.
    cache-nodes = {
      below     = true
      threshold = var.limits.nodes
      minutes   = 5
      missing   = "breaching"
      queries   = [{ id = "nodes", service = local.readers.node, name = var.metrics.ring_nodes, statistic = "Minimum", expression = null }]
      meaning   = "A node sees fewer nodes in the ring than there should be."
    }
    cache-keeping = {
      below     = true
      threshold = 1
      minutes   = 5
      missing   = "breaching"
      queries   = [{ id = "keeping", service = local.readers.node, name = var.metrics.keeping, statistic = "Minimum", expression = null }]
      meaning   = "A node keeps nothing: it hears no events, or the archive is behind."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.meaning
  comparison_operator = each.value.below ? "LessThanThreshold" : "GreaterThanThreshold"
  threshold           = each.value.threshold
  evaluation_periods  = each.value.minutes
  treat_missing_data  = each.value.missing
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]

  dynamic "metric_query" {
    for_each = { for index, query in each.value.queries : index => merge(query, { is_compared = index == length(each.value.queries) - 1 }) }

    content {
      id          = metric_query.value.id
      expression  = metric_query.value.expression
      return_data = metric_query.value.is_compared

      dynamic "metric" {
        for_each = metric_query.value.expression == null ? [metric_query.value] : []

        content {
          namespace   = var.metrics.namespace
          metric_name = metric.value.name
          dimensions  = { Service = metric.value.service }
          period      = 60
          stat        = metric.value.statistic
        }
      }
    }
  }
}
