output "url" {
  description = "REDIS_URL without credentials. TLS: rediss."
  value = "rediss://${one(concat(
    aws_elasticache_replication_group.this[*].primary_endpoint_address,
    [for cluster in aws_memorydb_cluster.this : cluster.cluster_endpoint[0].address],
  ))}:${var.port}/0"
}

output "user" {
  description = "REDIS_USER: MemoryDB knows users; ElastiCache with a token has the default one, which is not named."
  value       = local.on_memorydb ? aws_memorydb_user.this[0].user_name : null
}

output "secret_arn" {
  description = "The secret whose text is the password."
  value       = aws_secretsmanager_secret.password.arn
}

output "node_ids" {
  description = "Nodes as CloudWatch names them; empty for MemoryDB, which is found by its cluster name."
  value       = local.on_elasticache ? [for index in range(1 + var.replicas) : format("%s-%03d", var.name, index + 1)] : []
}

output "id" {
  description = "The cluster, as the guard knows it."
  value       = one(concat(aws_elasticache_replication_group.this[*].id, aws_memorydb_cluster.this[*].id))
}

output "posture" {
  description = "What the tests of the environments look at."
  value = {
    engine            = var.engine
    final_snapshot    = local.on_memorydb ? aws_memorydb_cluster.this[0].final_snapshot_name : aws_elasticache_replication_group.this[0].final_snapshot_identifier
    upgrades_itself   = tobool(local.on_memorydb ? aws_memorydb_cluster.this[0].auto_minor_version_upgrade : aws_elasticache_replication_group.this[0].auto_minor_version_upgrade)
    multi_az          = local.on_memorydb ? true : aws_elasticache_replication_group.this[0].multi_az_enabled
    encrypted         = local.on_memorydb ? aws_memorydb_cluster.this[0].kms_key_arn != null : aws_elasticache_replication_group.this[0].at_rest_encryption_enabled
    tls               = local.on_memorydb ? aws_memorydb_cluster.this[0].tls_enabled : aws_elasticache_replication_group.this[0].transit_encryption_enabled
    password_required = local.on_memorydb ? aws_memorydb_cluster.this[0].acl_name != "open-access" : nonsensitive(aws_elasticache_replication_group.this[0].auth_token != null)
    eviction          = one([for parameter in local.on_memorydb ? aws_memorydb_parameter_group.this[0].parameter : aws_elasticache_parameter_group.this[0].parameter : parameter.value if parameter.name == "maxmemory-policy"])
  }
}
