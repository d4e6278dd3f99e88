# What must not be destroyed or made anew. Terraform's own `prevent_destroy` cannot be switched by a variable, and would have to
# stand in every module twice. So it stands here once, in something that exists only where `protect` is on and that depends on all
# of it. `terraform destroy` plans to destroy this too, and refuses the whole plan, before anything is touched. A change that would
# replace one of the named things gives it a new id, for which this would be replaced, which is refused as well.
#
# There are two ways past it, both by hand: `terraform state rm module.environment.module.guard`, and `-replace` together with `-target`,
# which leaves out of the plan what depends on the target. docs/deploy-aws.md, step 15.

terraform {
  required_version = ">= 1.11"
}

variable "protect" {
  description = "Whether anything is protected."
  type        = bool
}

variable "ids" {
  description = "The protected things: id by what it is."
  type        = map(string)
}

resource "terraform_data" "this" {
  count            = var.protect ? 1 : 0
  input            = keys(var.ids)
  triggers_replace = var.ids

  lifecycle {
    prevent_destroy = true
  }
}

output "protected" {
  description = "What is protected; empty where nothing is."
  value       = flatten(terraform_data.this[*].input)
}
