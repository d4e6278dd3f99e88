output "url" {
  description = "Where the platform is."
  value       = "https://${var.domain_name}"
}

output "alb_dns_name" {
  description = "What the domain's CNAME points at, where its zone is not in Route 53."
  value       = module.alb.dns_name
}

output "cluster_name" {
  description = "The ECS cluster."
  value       = aws_ecs_cluster.this.name
}

output "dashboard" {
  description = "The dashboard in CloudWatch."
  value       = module.observability.dashboard
}

output "exports_bucket" {
  description = "Where exports of closed items go."
  value       = module.storage.exports_bucket
}

output "feed_token_secret" {
  description = "The secret whose key feed_token_secret your own site signs tokens with."
  value       = aws_secretsmanager_secret.application.arn
}

output "one_shot" {
  description = "Begins `aws ecs run-task`: docs/deploy-aws.md says how it goes on."
  value = join(" ", [
    "aws ecs run-task --launch-type FARGATE --region ${var.region}",
    "--cluster ${aws_ecs_cluster.this.name}",
    # The newest revision: what was deployed last.
    "--task-definition ${module.one_shot.family}",
    "--network-configuration 'awsvpcConfiguration={subnets=[${join(",", module.network.task_subnet_ids)}],securityGroups=[${module.network.security_group_ids["archiver"]}],assignPublicIp=DISABLED}'",
  ])
}

output "operator" {
  description = "Begins `aws ecs run-task` of operators' commands: docs/deploy-aws.md says how it goes on."
  value = join(" ", [
    "aws ecs run-task --launch-type FARGATE --region ${var.region}",
    "--cluster ${aws_ecs_cluster.this.name}",
    "--task-definition ${module.operator.family}",
    "--network-configuration 'awsvpcConfiguration={subnets=[${join(",", module.network.task_subnet_ids)}],securityGroups=[${module.network.security_group_ids["archiver"]}],assignPublicIp=DISABLED}'",
  ])
}

output "protected" {
  description = "What no plan may destroy or make anew; empty where nothing is protected."
  value       = module.guard.protected
}

output "posture" {
  description = "What the tests look at: how this environment keeps its promises."
  value = {
    services        = merge({ gateway = module.gateway.posture, broadcaster = module.broadcaster.posture, archiver = module.archiver.posture, one-shot = module.one_shot.posture, operator = module.operator.posture }, module.nats.posture, { for role, each in module.cache : local.cache_programs[role].name => each.posture })
    redis           = module.redis.posture
    postgres        = module.postgres.posture
    buckets         = module.storage.posture
    alb_protected   = module.alb.deletion_protection
    alb_group       = module.network.security_group_ids["alb"]
    groups          = keys(module.network.security_group_ids)
    open_groups     = values(module.network.open_to_addresses)
    zones           = length(local.zones)
    internet_routes = module.network.internet_routes
    buckets_reached = module.network.reachable_buckets
    route_tables    = module.network.route_table_of_subnet
    public_subnets  = module.network.public_subnet_ids
    private_subnets = concat(module.network.task_subnet_ids, module.network.data_subnet_ids)
    key_arn         = module.encryption.key_arn
    budget_usd      = module.observability.budget_usd
    alarms          = concat(module.observability.alarm_names, flatten(module.cache_alarms[*].alarm_names))
    rings_silent    = module.observability.rings_in_silence
    cache_alarms    = one(module.cache_alarms[*].posture)
    dashboard       = module.observability.panel_titles
    admitted        = module.network.admitted
    front_end_paths = module.alb.front_end_paths
    firewall_rules  = module.alb.firewall_rules
    fixed_names     = module.network.fixed_names
    nats_disks      = module.nats.disks
    drains          = module.alb.drains
    insights        = one([for each in aws_ecs_cluster.this.setting : each.value if each.name == "containerInsights"])
    collectors      = { for key, each in module.collector : key => each.configuration }
    identity        = local.identity_settings
  }
}
