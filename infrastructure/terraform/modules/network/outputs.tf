output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "public_subnet_ids" {
  description = "Subnets of the load balancer, one per zone."
  value       = [for zone in var.zones : aws_subnet.public[zone].id]
}

output "public_subnet_cidrs" {
  description = "Addresses that the load balancer speaks from."
  value       = [for zone in var.zones : aws_subnet.public[zone].cidr_block]
}

output "task_subnet_ids" {
  description = "Subnets of the tasks, one per zone, in the order of the zones."
  value       = [for zone in var.zones : aws_subnet.tasks[zone].id]
}

output "data_subnet_ids" {
  description = "Subnets of the databases, one per zone."
  value       = [for zone in var.zones : aws_subnet.data[zone].id]
}

output "security_group_ids" {
  description = "Security group by what it is for: alb, gateway, broadcaster, archiver, nats, nats-disk, redis, postgres, endpoints; with a read cache cache-node and cache-front-end."
  value       = { for name, group in aws_security_group.this : name => group.id }
}

output "fixed_names" {
  description = "Security groups with a name of their own, which could not be replaced before they are destroyed. None may be here."
  value       = [for name, group in aws_security_group.this : name if !startswith(coalesce(group.name_prefix, " "), "${var.name}-")]
}

output "open_to_addresses" {
  description = "Security groups that admit addresses rather than other groups, by rule. Only the load balancer's may be here."
  value       = { for name, rule in aws_vpc_security_group_ingress_rule.public : name => rule.security_group_id }
}

output "admitted" {
  description = "Who is admitted where: from-to-port of each rule that names a security group of this environment."
  value       = keys(aws_vpc_security_group_ingress_rule.internal)
}

output "internet_routes" {
  description = "Route tables with a way to the internet."
  value       = [aws_route.internet.route_table_id]
}

output "route_table_of_subnet" {
  description = "Route table by subnet, for every subnet."
  value = {
    for association in concat(values(aws_route_table_association.public), values(aws_route_table_association.tasks), values(aws_route_table_association.data)) :
    association.subnet_id => association.route_table_id
  }
}

output "reachable_buckets" {
  description = "What tasks reach of S3, by the policy of its endpoint."
  value       = flatten([for statement in jsondecode(aws_vpc_endpoint.s3.policy).Statement : statement.Resource])
}
