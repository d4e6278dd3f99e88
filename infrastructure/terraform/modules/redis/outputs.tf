output "url" {
  description = "REDIS_URL without credentials. TLS: rediss. Of a cluster one address, behind which any node answers who has what."
  value = local.is_cluster ? "rediss+cluster://${aws_elasticache_replication_group.this[0].configuration_endpoint_address}:${var.port}" : "rediss://${one(concat(
    aws_elasticache_replication_group.this[*].primary_endpoint_address,
    [for cluster in aws_memorydb_cluster.this : cluster.cluster_endpoint[0].address],
  ))}:${var.port}/0"
}

output "users" {
  description = "REDIS_USER by account. Names of MemoryDB's users are those of a whole account of AWS and region."
  value       = { for account in keys(local.access) : account => local.on_memorydb ? aws_memorydb_user.account[account].user_name : aws_elasticache_user.account[account].user_name }
}

output "node_ids" {
  description = "Nodes as CloudWatch names them; empty for MemoryDB, which is found by its cluster name."
  value = !local.on_elasticache ? [] : local.is_cluster ? flatten([
    for shard in range(var.shards) : [for index in range(1 + var.replicas) : format("%s-%04d-%03d", var.name, shard + 1, index + 1)]
  ]) : [for index in range(1 + var.replicas) : format("%s-%03d", var.name, index + 1)]
}

output "id" {
  description = "The cluster, as the guard knows it."
  value       = one(concat(aws_elasticache_replication_group.this[*].id, aws_memorydb_cluster.this[*].id))
}

output "posture" {
  description = "What the tests of the environments look at."
  value = {
    engine            = var.engine
    shards            = local.is_cluster ? aws_elasticache_replication_group.this[0].num_node_groups : 1
    nodes_per_shard   = local.is_cluster ? 1 + aws_elasticache_replication_group.this[0].replicas_per_node_group : 1 + (local.on_elasticache ? var.replicas : 0)
    fails_over        = local.on_elasticache ? aws_elasticache_replication_group.this[0].automatic_failover_enabled : true
    parameters        = local.on_elasticache ? { for parameter in aws_elasticache_parameter_group.this[0].parameter : parameter.name => parameter.value } : {}
    final_snapshot    = local.on_memorydb ? aws_memorydb_cluster.this[0].final_snapshot_name : aws_elasticache_replication_group.this[0].final_snapshot_identifier
    upgrades_itself   = tobool(local.on_memorydb ? aws_memorydb_cluster.this[0].auto_minor_version_upgrade : aws_elasticache_replication_group.this[0].auto_minor_version_upgrade)
    multi_az          = local.on_memorydb ? true : aws_elasticache_replication_group.this[0].multi_az_enabled
    encrypted         = local.on_memorydb ? aws_memorydb_cluster.this[0].kms_key_arn != null : aws_elasticache_replication_group.this[0].at_rest_encryption_enabled
    tls               = local.on_memorydb ? aws_memorydb_cluster.this[0].tls_enabled : aws_elasticache_replication_group.this[0].transit_encryption_enabled
    password_required = local.on_memorydb ? aws_memorydb_cluster.this[0].acl_name == aws_memorydb_acl.this[0].name : aws_elasticache_replication_group.this[0].user_group_ids == toset(aws_elasticache_user_group.this[*].user_group_id)
    # Who may log in, and what they may do.
    accounts = local.on_memorydb ? { for account, user in aws_memorydb_user.account : account => user.access_string } : { for account, user in aws_elasticache_user.account : account => user.access_string }
    members  = local.on_memorydb ? aws_memorydb_acl.this[0].user_names : aws_elasticache_user_group.this[0].user_ids
    nameless = local.on_memorydb ? null : aws_elasticache_user.default[0].access_string
    # How many passwords of each account hold.
    passwords = { for account, passwords in var.passwords : account => nonsensitive(length(passwords)) }
    eviction  = one([for parameter in local.on_memorydb ? aws_memorydb_parameter_group.this[0].parameter : aws_elasticache_parameter_group.this[0].parameter : parameter.value if parameter.name == "maxmemory-policy"])
  }
}
