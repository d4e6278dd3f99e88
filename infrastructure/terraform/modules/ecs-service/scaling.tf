# Target tracking: the number of tasks follows one figure, and, where that is asked for, the CPU. At most one of the two kinds
# of figures is used. Of two policies the one that wants more tasks holds, and tasks go only where both agree.

locals {
  scales = var.service != null && var.scaling != null
}

resource "aws_appautoscaling_target" "this" {
  count              = local.scales ? 1 : 0
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${var.cluster_name}/${aws_ecs_service.this[0].name}"
  min_capacity       = local.min_now
  max_capacity       = max(var.scaling.max, local.min_now)
}

resource "aws_appautoscaling_policy" "this" {
  count              = local.scales ? 1 : 0
  name               = "${var.prefix}-${var.name}"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.scaling.target
    scale_out_cooldown = 60
    # Slow: an auction's last minute comes after a quiet one.
    scale_in_cooldown = 600

    dynamic "predefined_metric_specification" {
      for_each = var.scaling.request_count_label == null ? [] : [var.scaling.request_count_label]

      content {
        predefined_metric_type = "ALBRequestCountPerTarget"
        resource_label         = predefined_metric_specification.value
      }
    }

    dynamic "customized_metric_specification" {
      for_each = var.scaling.metric == null ? [] : [var.scaling.metric]

      content {
        namespace   = customized_metric_specification.value.namespace
        metric_name = customized_metric_specification.value.name
        statistic   = customized_metric_specification.value.statistic

        dynamic "dimensions" {
          for_each = customized_metric_specification.value.dimensions

          content {
            name  = dimensions.key
            value = dimensions.value
          }
        }
      }
    }
  }
}

resource "aws_appautoscaling_policy" "cpu" {
  count              = local.scales && try(var.scaling.cpu_percent, null) != null ? 1 : 0
  name               = "${var.prefix}-${var.name}-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.scaling.cpu_percent
    scale_out_cooldown = 60
    scale_in_cooldown  = 600

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

# The last minutes of an auction come suddenly, and a task needs a minute to start. Where the end is known, tasks are there before.
# What the autoscaler wants besides still holds, up to the same ceiling. An apply in the meantime must not take these tasks away again,
# so this configuration has the raised minimum during that time. AWS accepts no action whose time is past.
locals {
  min_now = max(concat(
    [try(var.scaling.min, 0)],
    [for end in values(var.known_ends) : end.min if timecmp(end.begins, plantimestamp()) <= 0 && timecmp(plantimestamp(), end.ends) < 0],
  )...)

  planned = merge([
    for name, end in(local.scales ? var.known_ends : {}) : {
      "${name}-begins" = { at = end.begins, min = end.min }
      "${name}-ends"   = { at = end.ends, min = var.scaling.min }
    }
  ]...)
}

resource "aws_appautoscaling_scheduled_action" "this" {
  for_each           = { for name, action in local.planned : name => action if timecmp(action.at, plantimestamp()) > 0 }
  name               = "${var.prefix}-${var.name}-${each.key}"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id
  schedule           = "at(${formatdate("YYYY-MM-DD'T'hh:mm:ss", each.value.at)})"
  timezone           = "UTC"

  scalable_target_action {
    min_capacity = each.value.min
    max_capacity = max(var.scaling.max, each.value.min)
  }
}
