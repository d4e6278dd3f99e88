output "url" {
  description = "POSTGRES_URL without credentials; TLS is required."
  value       = "postgresql://${aws_db_instance.this.address}:${aws_db_instance.this.port}/${aws_db_instance.this.db_name}?sslmode=require"
}

output "secret_arn" {
  description = "The secret with username and password, made by RDS."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}

output "identifier" {
  description = "As CloudWatch names the instance."
  value       = aws_db_instance.this.identifier
}

output "id" {
  description = "The instance, as the guard knows it."
  value       = aws_db_instance.this.id
}

output "posture" {
  description = "What the tests of the environments look at."
  value = {
    multi_az            = aws_db_instance.this.multi_az
    encrypted           = aws_db_instance.this.storage_encrypted
    public              = aws_db_instance.this.publicly_accessible
    deletion_protection = aws_db_instance.this.deletion_protection
    managed_password    = aws_db_instance.this.manage_master_user_password
    backup_days         = aws_db_instance.this.backup_retention_period
    tls_forced          = one([for parameter in aws_db_parameter_group.this.parameter : parameter.value if parameter.name == "rds.force_ssl"]) == "1"
  }
}
