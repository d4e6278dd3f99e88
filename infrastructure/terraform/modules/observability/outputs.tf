output "topic_arn" {
  description = "Where alarms and budget go."
  value       = aws_sns_topic.alarms.arn
}

output "alarm_names" {
  description = "All alarms."
  value       = [for alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_name]
}

output "alarm_name" {
  description = "An alarm's name, by what it is called here."
  value       = { for key, alarm in aws_cloudwatch_metric_alarm.this : key => alarm.alarm_name }
}

output "budget_usd" {
  description = "What the month may cost."
  value       = tonumber(aws_budgets_budget.month.limit_amount)
}

output "dashboard" {
  description = "Name of the dashboard."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}

output "panel_titles" {
  description = "What the dashboard shows."
  value       = [for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : widget.properties.title]
}

output "rings_in_silence" {
  description = "Alarms that ring where their metric stops coming; the tests look at them."
  value       = sort([for each in aws_cloudwatch_metric_alarm.this : each.alarm_name if each.treat_missing_data == "breaching"])
}
