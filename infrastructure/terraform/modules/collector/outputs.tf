output "container" {
  description = "The container's definition, as JSON."
  value       = jsonencode(local.container)
}

output "configuration" {
  description = "The collector's configuration; the tests look at it."
  value       = jsonencode(local.configuration)
}
