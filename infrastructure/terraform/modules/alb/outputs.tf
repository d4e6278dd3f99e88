output "arn_suffix" {
  description = "As CloudWatch names the balancer."
  value       = aws_lb.this.arn_suffix
}

output "dns_name" {
  description = "The balancer's own name, for a CNAME where the zone is not in Route 53."
  value       = aws_lb.this.dns_name
}

output "target_group_arns" {
  description = "Target group by service."
  value       = { for name, group in aws_lb_target_group.this : name => group.arn }
}

output "target_group_suffixes" {
  description = "As CloudWatch names the target groups, by service."
  value       = { for name, group in aws_lb_target_group.this : name => group.arn_suffix }
}

output "listener_arn" {
  description = "The HTTPS listener; services wait for it, because a target group without a listener takes no service."
  value       = aws_lb_listener.https.arn
}

output "deletion_protection" {
  description = "Whether the balancer refuses to be deleted."
  value       = aws_lb.this.enable_deletion_protection
}

output "web_acl_name" {
  description = "As CloudWatch names the firewall."
  value       = var.name
}

output "firewall_rules" {
  description = "The firewall's rules, as documents; the tests of the environments look at them."
  value       = [for rule in local.firewall_rules : jsondecode(rule)]
}

output "drains" {
  description = "Seconds that the connections of a leaving task go on, by service."
  value       = { for name, group in aws_lb_target_group.this : name => tonumber(group.deregistration_delay) }
}

output "front_end_paths" {
  description = "Paths that lead to the front ends of the read cache."
  value       = flatten([for rule in aws_lb_listener_rule.front_end : [for each in rule.condition : [for pattern in each.path_pattern : tolist(pattern.values)]]])
}
