# Who reaches dev, how often, and who is believed to be whom.

variable "alb_ingress_cidrs" {
  description = "IPv4 networks that may reach the platform at all. 0.0.0.0/0 is everybody; with auth_mode = open the API does not ask who is calling."
  type        = list(string)

  validation {
    condition     = alltrue([for each in var.alb_ingress_cidrs : can(cidrhost(each, 0))])
    error_message = "alb_ingress_cidrs are IPv4 networks, such as 203.0.113.0/24."
  }

  validation {
    condition     = length(var.alb_ingress_cidrs) > 0
    error_message = "Without alb_ingress_cidrs nobody could reach it."
  }
}

variable "operator_cidrs" {
  description = "IPv4 networks that may create, pause, resume, extend, cancel and void, and read /metrics; empty for none."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for each in var.operator_cidrs : can(cidrhost(each, 0))])
    error_message = "operator_cidrs are IPv4 networks, such as 203.0.113.0/24."
  }

  validation {
    condition     = !contains(var.operator_cidrs, "0.0.0.0/0")
    error_message = "operator_cidrs must not be everybody."
  }
}

variable "requests_per_address" {
  description = "Requests of one address in a minute; past it the firewall answers 403. A load run from one machine needs more."
  type        = number
  default     = 3000

  validation {
    condition     = var.requests_per_address >= 10 && var.requests_per_address <= 2000000000
    error_message = "requests_per_address must be 10 to 2,000,000,000."
  }
}

variable "proxy_cidrs" {
  description = "IPv4 networks of the site or CDN in front, whose requests are those of many people; empty where browsers come by themselves. It has to write X-Forwarded-For itself: its first address is the one that counts."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for each in var.proxy_cidrs : can(cidrhost(each, 0)) && !endswith(each, "/0")])
    error_message = "proxy_cidrs are IPv4 networks, such as 203.0.113.0/24, and not everybody: who is in them is believed."
  }
}

variable "requests_per_proxy" {
  description = "Requests of one address of proxy_cidrs in a minute, all people together."
  type        = number
  default     = 600000

  validation {
    condition     = var.requests_per_proxy >= 10 && var.requests_per_proxy <= 2000000000
    error_message = "requests_per_proxy must be 10 to 2,000,000,000."
  }
}

variable "auth_mode" {
  description = "open: whoever reaches it may do anything, as anybody. jwt: a token says who calls. docs/security.md."
  type        = string
  default     = "open"

  validation {
    condition     = contains(["open", "jwt"], var.auth_mode)
    error_message = "auth_mode is open or jwt."
  }
}

variable "auth_issuer" {
  description = "With jwt: what `iss` of a token must be."
  type        = string
  default     = ""

  validation {
    condition     = (var.auth_issuer != "") == (var.auth_mode == "jwt")
    error_message = "auth_issuer belongs to auth_mode = jwt: set both, or neither."
  }
}

variable "auth_audience" {
  description = "With jwt: what `aud` of a token must be or contain."
  type        = string
  default     = ""

  validation {
    condition     = (var.auth_audience != "") == (var.auth_mode == "jwt")
    error_message = "auth_audience belongs to auth_mode = jwt: set both, or neither."
  }
}

variable "auth_jwks" {
  description = "With jwt: the issuer's public keys, as JSON; null for a secret (HS256) that Secrets Manager makes. Tasks have no way out to fetch them."
  type        = string
  default     = null

  validation {
    condition     = var.auth_jwks == null ? true : var.auth_mode == "jwt" && length(try(jsondecode(var.auth_jwks).keys, [])) > 0
    error_message = "auth_jwks is a JSON Web Key Set with at least one key, for auth_mode = jwt."
  }

  validation {
    condition     = var.auth_jwks == null ? true : alltrue([for each in try(jsondecode(var.auth_jwks).keys, []) : length(setintersection(keys(each), ["d", "k"])) == 0])
    error_message = "auth_jwks holds a private key or a secret. Public keys alone belong here: it is in the state."
  }
}

variable "auth_leeway_s" {
  description = "With jwt: by how many seconds the issuer's clock may differ."
  type        = number
  default     = 30

  validation {
    condition     = var.auth_leeway_s >= 0 && var.auth_leeway_s <= 300
    error_message = "auth_leeway_s must be 0 to 300."
  }
}

variable "api_keys" {
  description = "With jwt: whether services may get tokens for API keys."
  type        = bool
  default     = false

  validation {
    condition     = !var.api_keys || var.auth_mode == "jwt"
    error_message = "api_keys needs tokens: auth_mode = jwt."
  }

  validation {
    condition     = !var.api_keys || (var.auth_jwks == null) == (var.auth_signing_key_arn == null)
    error_message = "With auth_jwks api_keys needs auth_signing_key_arn, the private half of one of those keys; with HS256 it takes none."
  }
}

variable "auth_signing_key_arn" {
  description = "With api_keys and auth_jwks: the secret whose text is the private key (P-256, PEM) that signs those tokens. Made outside: what is here is in the state."
  type        = string
  default     = null

  validation {
    condition     = var.auth_signing_key_arn == null ? true : startswith(var.auth_signing_key_arn, "arn:aws:secretsmanager:")
    error_message = "auth_signing_key_arn is the ARN of a secret in Secrets Manager, not the key."
  }
}

variable "postgres_ca" {
  description = "Certificates in PEM of the authority that PostgreSQL's certificate has to come from: the bundle of RDS for the region. Null: encrypted, but any server is believed."
  type        = string
  default     = null

  validation {
    condition     = var.postgres_ca == null ? true : startswith(trimspace(var.postgres_ca), "-----BEGIN CERTIFICATE-----")
    error_message = "postgres_ca is the text of certificates in PEM, as file(...) reads it."
  }
}

variable "secrets_since" {
  description = "Own secrets that are being replaced, and the instant at which the new one takes over: application (aliases and feed tokens), signing (HS256), api_keys. docs/deploy-aws.md has the steps."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.secrets_since) : contains(["application", "signing", "api_keys"], name)])
    error_message = "secrets_since names application, signing or api_keys."
  }

  validation {
    condition     = alltrue([for instant in values(var.secrets_since) : can(formatdate("YYYY", instant))])
    error_message = "secrets_since has instants, such as 2030-01-31T18:00:00Z."
  }
}

variable "redis_two_passwords" {
  description = "Whether Redis takes the passwords of before too: true while services change over to new ones."
  type        = bool
  default     = false
}

variable "redis_former_account" {
  description = "Whether Redis still admits the single account of former versions, which had no account for each service: true while such a cluster moves over, false ever after."
  type        = bool
  default     = false
}
