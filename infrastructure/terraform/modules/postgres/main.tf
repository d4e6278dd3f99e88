# The archive. AWS makes the password, keeps it in Secrets Manager and rotates it; no part of it is in the state.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

resource "aws_db_subnet_group" "this" {
  name       = var.name
  subnet_ids = var.subnet_ids
}

resource "aws_db_parameter_group" "this" {
  name_prefix = "${var.name}-"
  family      = "postgres${var.major_version}"

  # Connections without TLS are refused.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  # Who changes the schema, and what was slow. Statements of the services carry user ids: they are not all logged.
  parameter {
    name  = "log_statement"
    value = "ddl"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }

  # A task that dies in the middle of a transaction must not hold its locks for hours.
  parameter {
    name  = "idle_in_transaction_session_timeout"
    value = "60000"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_db_instance" "this" {
  #checkov:skip=CKV_AWS_157:multi-AZ is on in prod (tested in envs/prod) and off in dev for its cost
  #checkov:skip=CKV_AWS_293:deletion protection is on in prod (tested in envs/prod) and off in dev, so that it can be destroyed
  #checkov:skip=CKV_AWS_118:enhanced monitoring is charged by the second of resolution; CloudWatch's minute is enough for an archive
  identifier     = var.name
  engine         = "postgres"
  engine_version = var.major_version
  instance_class = var.instance_class
  db_name        = "bidding"
  username       = "bidding"

  manage_master_user_password   = true
  master_user_secret_kms_key_id = var.kms_key_arn

  multi_az               = var.multi_az
  db_subnet_group_name   = aws_db_subnet_group.this.name
  vpc_security_group_ids = [var.security_group_id]
  publicly_accessible    = false
  port                   = 5432
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  storage_type          = "gp3"
  allocated_storage     = var.storage_gb
  max_allocated_storage = var.storage_gb_max
  storage_encrypted     = true
  kms_key_id            = var.kms_key_arn

  parameter_group_name            = aws_db_parameter_group.this.name
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]
  performance_insights_enabled    = true
  # Seven days are free.
  performance_insights_retention_period = 7
  performance_insights_kms_key_id       = var.kms_key_arn

  backup_retention_period             = var.backup_days
  backup_window                       = "02:00-03:00"
  maintenance_window                  = "sun:04:00-sun:05:00"
  copy_tags_to_snapshot               = true
  auto_minor_version_upgrade          = true
  allow_major_version_upgrade         = false
  iam_database_authentication_enabled = true
  deletion_protection                 = var.deletion_protection
  skip_final_snapshot                 = !var.deletion_protection
  final_snapshot_identifier           = var.deletion_protection ? "${var.name}-final" : null
  delete_automated_backups            = !var.deletion_protection
  apply_immediately                   = !var.deletion_protection

  depends_on = [aws_cloudwatch_log_group.this]
}

# Made here, before RDS makes them itself, so that they have a retention and a key.
resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_338:retention is a variable per environment
  #checkov:skip=CKV_AWS_158:the key's policy names the log groups below /<name>/; these have RDS' fixed names and hold no bids
  for_each          = toset(["postgresql", "upgrade"])
  name              = "/aws/rds/instance/${var.name}/${each.key}"
  retention_in_days = var.log_retention_days
}

# Tasks read the password only when they start, so this changes it seldom. docs/deploy-aws.md says how to change it by hand before that,
# and then restart the tasks.
resource "aws_secretsmanager_secret_rotation" "password" {
  #checkov:skip=CKV_AWS_304:a change that nobody watches would leave tasks with the old password; the interval is postgres_rotation_days
  secret_id          = aws_db_instance.this.master_user_secret[0].secret_arn
  rotate_immediately = false

  rotation_rules {
    automatically_after_days = var.rotation_days
  }
}
