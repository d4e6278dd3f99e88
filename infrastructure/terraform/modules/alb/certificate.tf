# The certificate: one that exists, or one that is ordered here and proven through the domain's zone in Route 53.

locals {
  orders_certificate = var.certificate_arn == null
  certificate_arn    = local.orders_certificate ? aws_acm_certificate_validation.this[0].certificate_arn : var.certificate_arn
}

resource "aws_acm_certificate" "this" {
  count             = local.orders_certificate ? 1 : 0
  domain_name       = var.domain_name
  validation_method = "DNS"

  lifecycle {
    create_before_destroy = true

    precondition {
      condition     = var.hosted_zone_id != null
      error_message = "Give certificate_arn, or hosted_zone_id of the domain's zone so that a certificate can be ordered."
    }
  }
}

resource "aws_route53_record" "validation" {
  for_each        = local.orders_certificate && var.hosted_zone_id != null ? toset([var.domain_name]) : toset([])
  zone_id         = var.hosted_zone_id
  name            = one(aws_acm_certificate.this[0].domain_validation_options).resource_record_name
  type            = one(aws_acm_certificate.this[0].domain_validation_options).resource_record_type
  records         = [one(aws_acm_certificate.this[0].domain_validation_options).resource_record_value]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  count                   = local.orders_certificate ? 1 : 0
  certificate_arn         = aws_acm_certificate.this[0].arn
  validation_record_fqdns = [for record in aws_route53_record.validation : record.fqdn]
}

# Where the zone is elsewhere, the owner points the name at the balancer by hand; see docs/deploy-aws.md.
resource "aws_route53_record" "name" {
  count   = var.hosted_zone_id == null ? 0 : 1
  zone_id = var.hosted_zone_id
  name    = var.domain_name
  type    = "A"

  alias {
    name                   = aws_lb.this.dns_name
    zone_id                = aws_lb.this.zone_id
    evaluate_target_health = false
  }
}
