output "family" {
  description = "Family of the task definition; for `aws ecs run-task`; alone it names the newest revision."
  value       = aws_ecs_task_definition.this.family
}

output "service_id" {
  description = "The service, as the guard knows it; null for a task definition alone."
  value       = one(aws_ecs_service.this[*].id)
}

output "service_name" {
  description = "Name of the service; null for a task definition alone."
  value       = one(aws_ecs_service.this[*].name)
}

output "log_group" {
  description = "The log group."
  value       = aws_cloudwatch_log_group.this.name
}

output "posture" {
  description = "What the tests of the environments look at."
  value = {
    is_service      = var.service != null
    container       = jsondecode(aws_ecs_task_definition.this.container_definitions)[0]
    companions      = slice(jsondecode(aws_ecs_task_definition.this.container_definitions), 1, length(var.companions) + 1)
    kept_disks      = [for volume in aws_ecs_task_definition.this.volume : volume.name if length(volume.efs_volume_configuration) > 0]
    alarms          = flatten([for each in try(aws_ecs_service.this[0].alarms, []) : [for name in each.alarm_names : name if each.enable && each.rollback]])
    in_place        = try(aws_ecs_service.this[0].deployment_minimum_healthy_percent, null) == 0
    planned_ends    = { for name, action in aws_appautoscaling_scheduled_action.this : name => { schedule = action.schedule, min = tonumber(action.scalable_target_action[0].min_capacity), max = tonumber(action.scalable_target_action[0].max_capacity) } }
    circuit_breaker = one(aws_ecs_service.this[*].deployment_circuit_breaker)
    public_ip       = one(aws_ecs_service.this[*].network_configuration[0].assign_public_ip)
    subnet_ids      = one(aws_ecs_service.this[*].network_configuration[0].subnets)
    task_rights     = flatten([for statement in local.task_statements : statement.Action])
    log_key         = aws_cloudwatch_log_group.this.kms_key_id
    min_tasks       = var.scaling == null ? try(var.service.desired, 0) : var.scaling.min
    min_now         = try(aws_appautoscaling_target.this[0].min_capacity, null)
    max_tasks       = try(aws_appautoscaling_target.this[0].max_capacity, try(var.service.desired, 0))
    cpu_target      = one(aws_appautoscaling_policy.cpu[*].target_tracking_scaling_policy_configuration[0].target_value)
    capacity        = [for each in try(aws_ecs_service.this[0].capacity_provider_strategy, []) : "${each.capacity_provider} ${each.base} ${each.weight}"]
    registered      = length(try(aws_ecs_service.this[0].service_registries, [])) == 1
    balanced        = length(try(aws_ecs_service.this[0].load_balancer, [])) == 1
  }
}
