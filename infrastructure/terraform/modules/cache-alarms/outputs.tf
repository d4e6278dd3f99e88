output "alarm_names" {
  description = "All of them."
  value       = [for alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_name]
}

output "panels" {
  description = "Panels for the dashboard, each as JSON."
  value       = local.panels
}

output "posture" {
  description = "What the tests of the environments look at: by the alarm's name, what it compares with what."
  value = {
    for name, alarm in aws_cloudwatch_metric_alarm.this : name => {
      threshold  = alarm.threshold
      comparison = alarm.comparison_operator
      minutes    = alarm.evaluation_periods
      missing    = alarm.treat_missing_data
      actions    = alarm.alarm_actions
      compared   = one([for query in alarm.metric_query : query.expression == null ? one(query.metric).metric_name : query.expression if query.return_data])
      metrics    = [for metric in flatten([for query in alarm.metric_query : query.metric]) : "${metric.dimensions["Service"]} ${metric.metric_name} ${metric.stat}"]
    }
  }
}
