output "task_definition_arn" {
  description = "The task definition, for `aws ecs run-task`."
  value       = aws_ecs_task_definition.this.arn
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
    circuit_breaker = one(aws_ecs_service.this[*].deployment_circuit_breaker)
    public_ip       = one(aws_ecs_service.this[*].network_configuration[0].assign_public_ip)
    subnet_ids      = one(aws_ecs_service.this[*].network_configuration[0].subnets)
    task_rights     = flatten([for statement in local.task_statements : statement.Action])
    log_key         = aws_cloudwatch_log_group.this.kms_key_id
    min_tasks       = var.scaling == null ? try(var.service.desired, 0) : var.scaling.min
  }
}
