# Two buckets: exports of closed items, and logs of the load balancer and the network.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

locals {
  # Names of buckets are the whole world's; the account's number makes them ours.
  names = {
    exports = "${var.name}-exports-${var.account_id}"
    logs    = "${var.name}-logs-${var.account_id}"
  }
}

resource "aws_s3_bucket" "exports" {
  #checkov:skip=CKV_AWS_144:a copy in another region doubles the cost; the rows stay in PostgreSQL, and an export can be written again from them
  #checkov:skip=CKV2_AWS_62:nothing waits for an export; the archival worker records each in its table
  bucket              = local.names.exports
  object_lock_enabled = var.object_lock_days > 0
  force_destroy       = var.force_destroy
}

resource "aws_s3_bucket" "logs" {
  #checkov:skip=CKV_AWS_144:logs are kept for days, not for ever
  #checkov:skip=CKV2_AWS_62:nothing waits for a log
  #checkov:skip=CKV_AWS_18:a bucket of access logs that logs its own accesses never ends
  #checkov:skip=CKV_AWS_145:the load balancer can write to buckets with SSE-S3 only
  #checkov:skip=CKV_AWS_21:logs are written once and expire; versions would only keep them longer
  bucket        = local.names.logs
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_versioning" "exports" {
  bucket = aws_s3_bucket.exports.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "exports" {
  count  = var.object_lock_days > 0 ? 1 : 0
  bucket = aws_s3_bucket.exports.id

  rule {
    default_retention {
      mode = "GOVERNANCE"
      days = var.object_lock_days
    }
  }

  depends_on = [aws_s3_bucket_versioning.exports]
}

resource "aws_s3_bucket_server_side_encryption_configuration" "exports" {
  bucket = aws_s3_bucket.exports.id

  rule {
    # One call to KMS per bucket and while, instead of one per object.
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each                = { exports = aws_s3_bucket.exports.id, logs = aws_s3_bucket.logs.id }
  bucket                  = each.value
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = { exports = aws_s3_bucket.exports.id, logs = aws_s3_bucket.logs.id }
  bucket   = each.value

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_logging" "exports" {
  bucket        = aws_s3_bucket.exports.id
  target_bucket = aws_s3_bucket.logs.id
  target_prefix = "s3-exports/"
}

resource "aws_s3_bucket_lifecycle_configuration" "exports" {
  bucket = aws_s3_bucket.exports.id

  rule {
    id     = "older-is-cheaper"
    status = "Enabled"
    filter {}

    transition {
      days          = 90
      storage_class = "STANDARD_IA"
    }

    noncurrent_version_expiration {
      noncurrent_days = 90
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.exports]
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    id     = "forget"
    status = "Enabled"
    filter {}

    expiration {
      days = var.log_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

locals {
  tls_only = {
    for name, arn in { exports = aws_s3_bucket.exports.arn, logs = aws_s3_bucket.logs.arn } : name => {
      Sid                      = "TlsOnly"
      Effect                   = "Deny"
      Principal                = "*"
      Action                   = "s3:*"
      Resource                 = [arn, "${arn}/*"]
      Condition                = { Bool = { "aws:SecureTransport" = "false" } }
    }
  }
}

resource "aws_s3_bucket_policy" "exports" {
  bucket     = aws_s3_bucket.exports.id
  policy     = jsonencode({ Version = "2012-10-17", Statement = [local.tls_only.exports] })
  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_policy" "logs" {
  bucket = aws_s3_bucket.logs.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      local.tls_only.logs,
      {
        Sid       = "AccessLogsOfTheLoadBalancer"
        Effect    = "Allow"
        Principal = { Service = "logdelivery.elasticloadbalancing.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${aws_s3_bucket.logs.arn}/alb/AWSLogs/${var.account_id}/*"
      },
      {
        Sid       = "FlowLogs"
        Effect    = "Allow"
        Principal = { Service = "delivery.logs.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${aws_s3_bucket.logs.arn}/flow/AWSLogs/${var.account_id}/*"
        Condition = { StringEquals = { "aws:SourceAccount" = var.account_id, "s3:x-amz-acl" = "bucket-owner-full-control" } }
      },
      {
        Sid       = "FlowLogsLookFirst"
        Effect    = "Allow"
        Principal = { Service = "delivery.logs.amazonaws.com" }
        Action    = "s3:GetBucketAcl"
        Resource  = aws_s3_bucket.logs.arn
        Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
      },
      {
        Sid       = "AccessLogsOfTheExports"
        Effect    = "Allow"
        Principal = { Service = "logging.s3.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${aws_s3_bucket.logs.arn}/s3-exports/*"
        Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
      },
    ]
  })
  depends_on = [aws_s3_bucket_public_access_block.this]
}
