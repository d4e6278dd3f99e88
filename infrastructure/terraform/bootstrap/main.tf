# Once per account and region, before anything else: the bucket for Terraform's state and the repositories of the images.
# Its own state is a file in this folder, since there is no bucket yet: docs/deploy-aws.md, step 3.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "us-east-1"
}

variable "project" {
  description = "Prefix of names; the same as in envs/."
  type        = string
  default     = "bidding"
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project   = var.project
      ManagedBy = "terraform"
    }
  }
}

data "aws_caller_identity" "current" {}

resource "aws_kms_key" "state" {
  description             = "Terraform state and images of ${var.project}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AccountAdministersByIam"
      Effect    = "Allow"
      Principal = { AWS = "arn:aws:iam::${data.aws_caller_identity.current.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })
}

# The state holds the passwords of Redis and NATS, so everybody who may read this bucket has them.
resource "aws_s3_bucket" "state" {
  #checkov:skip=CKV_AWS_144:versions of a state that can be imported again need no copy in another region
  #checkov:skip=CKV_AWS_18:CloudTrail tells who read it; a log bucket would need to be made before this one
  #checkov:skip=CKV2_AWS_62:nothing waits for a state
  bucket = "${var.project}-terraform-${data.aws_caller_identity.current.account_id}"

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "state" {
  bucket = aws_s3_bucket.state.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.state.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "state" {
  bucket                  = aws_s3_bucket.state.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 365
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.state]
}

resource "aws_s3_bucket_policy" "state" {
  bucket = aws_s3_bucket.state.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.state.arn, "${aws_s3_bucket.state.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
  depends_on = [aws_s3_bucket_public_access_block.state]
}

# The platform's image, that of NATS, and a copy of the collector's. A tag is never moved, so that a roll-back finds what ran.
resource "aws_ecr_repository" "this" {
  for_each             = toset([var.project, "${var.project}-nats", "${var.project}-collector"])
  name                 = each.key
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = aws_kms_key.state.arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each   = aws_ecr_repository.this
  repository = each.value.name
  policy = jsonencode({
    rules = concat(
      # What `bidding deploy` has rolled out has a second tag, with its environment. An image to which one rule applies is left alone by
      # the rules after it, so that no number of pushes for dev pushes out what prod runs.
      [for index, environment in ["prod", "dev"] : {
        rulePriority = index + 1
        description  = "Keep the last 30 that ran in ${environment}"
        selection    = { tagStatus = "tagged", tagPrefixList = ["${environment}-"], countType = "imageCountMoreThan", countNumber = 30 }
        action       = { type = "expire" }
      }],
      # A push with an attestation makes three images.
      [{
        rulePriority = 3
        description  = "Keep the last 300 of all others"
        selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 300 }
        action       = { type = "expire" }
      }],
    )
  })
}

output "state_bucket" {
  description = "Goes into backend.hcl of each environment."
  value       = aws_s3_bucket.state.id
}

output "repository_urls" {
  description = "Where the images are pushed to."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "kept_images" {
  description = "What each repository keeps: the tests look at it."
  value       = { for name, each in aws_ecr_lifecycle_policy.this : name => jsondecode(each.policy).rules }
}
