output "url" {
  description = "Where the platform is."
  value       = module.environment.url
}

output "alb_dns_name" {
  description = "What the domain's CNAME points at, where its zone is not in Route 53."
  value       = module.environment.alb_dns_name
}

output "cluster_name" {
  description = "The ECS cluster."
  value       = module.environment.cluster_name
}

output "dashboard" {
  description = "The dashboard in CloudWatch."
  value       = module.environment.dashboard
}

output "exports_bucket" {
  description = "Where exports of closed items go."
  value       = module.environment.exports_bucket
}

output "feed_token_secret" {
  description = "The secret whose key feed_token_secret your own site signs tokens with."
  value       = module.environment.feed_token_secret
}

output "protected" {
  description = "What no plan may destroy or make anew; empty where nothing is protected."
  value       = module.environment.protected
}

output "posture" {
  description = "How this environment keeps its promises; the tests look at it."
  value       = module.environment.posture
}

output "operator" {
  description = "Begins `aws ecs run-task` of operators' commands: docs/deploy-aws.md says how it goes on."
  value       = module.environment.operator
}

output "one_shot" {
  description = "Begins `aws ecs run-task`: docs/deploy-aws.md says how it goes on."
  value       = module.environment.one_shot
}
