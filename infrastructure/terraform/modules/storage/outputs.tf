output "exports_bucket" {
  description = "Name of the bucket of exports."
  value       = aws_s3_bucket.exports.id
}

output "exports_bucket_arn" {
  description = "Its ARN."
  value       = aws_s3_bucket.exports.arn
}

output "log_bucket" {
  description = "Name of the bucket of logs, once its policy lets logs in."
  value       = aws_s3_bucket_policy.logs.bucket
}

output "log_bucket_arn" {
  description = "Its ARN."
  value       = aws_s3_bucket.logs.arn
}

output "posture" {
  description = "What the tests of the environments look at, by bucket."
  value = {
    for name, each in {
      exports = { encryption = aws_s3_bucket_server_side_encryption_configuration.exports, policy = aws_s3_bucket_policy.exports.policy }
      logs    = { encryption = aws_s3_bucket_server_side_encryption_configuration.logs, policy = aws_s3_bucket_policy.logs.policy }
      } : name => {
      algorithm    = one(flatten([for rule in each.encryption.rule : [for by_default in rule.apply_server_side_encryption_by_default : by_default.sse_algorithm]]))
      blocks_plain = contains([for statement in jsondecode(each.policy).Statement : statement.Sid if statement.Effect == "Deny"], "TlsOnly")
      closed = alltrue([
        aws_s3_bucket_public_access_block.this[name].block_public_acls,
        aws_s3_bucket_public_access_block.this[name].block_public_policy,
        aws_s3_bucket_public_access_block.this[name].ignore_public_acls,
        aws_s3_bucket_public_access_block.this[name].restrict_public_buckets,
      ])
    }
  }
}
