output "url" {
  description = "NATS_URL without the password."
  value       = join(",", [for host in local.hosts : "nats://${local.user}@${host}:4222"])
}

output "password_reference" {
  description = "NATS_PASSWORD by reference."
  value       = local.secrets.NATS_PASSWORD
}

output "secret_arn" {
  description = "The secret with the passwords."
  value       = aws_secretsmanager_secret_version.this.arn
}

output "replicas" {
  description = "Copies that streams should have."
  value       = var.servers
}

output "service_names" {
  description = "The ECS services, one per server."
  value       = concat([module.server_0.service_name], module.server_1[*].service_name, module.server_2[*].service_name)
}

output "protected_ids" {
  description = "Services and disks, as the guard knows them."
  value = merge(
    { nats-0 = module.server_0.service_id },
    { for index, each in concat(module.server_1[*].service_id, module.server_2[*].service_id) : "nats-${index + 1}" => each },
    { for name, disk in aws_efs_file_system.this : "disk of ${name}" => disk.id },
  )
}

output "disks" {
  description = "What the tests of the environments look at: by server, whether its disk is encrypted, and where its way in is."
  value       = { for name, disk in aws_efs_file_system.this : name => { encrypted = disk.encrypted, subnet_id = aws_efs_mount_target.this[name].subnet_id } }
}

output "posture" {
  description = "What the tests of the environments look at, by server."
  value       = merge({ nats-0 = module.server_0.posture }, { for each in module.server_1 : "nats-1" => each.posture }, { for each in module.server_2 : "nats-2" => each.posture })
}
