# The same modules in both environments; only the figures differ. State lies where backend.tf of yours says.
locals {
  name = "cartwin-production"
}

provider "google" {
  project = var.project
  region  = var.region
}

data "google_client_config" "this" {}

provider "helm" {
  kubernetes = {
    host                   = "https://${module.cluster.endpoint}"
    token                  = data.google_client_config.this.access_token
    cluster_ca_certificate = try(base64decode(module.cluster.ca_certificate), null)
  }
}

module "network" {
  source = "../../modules/network"

  name   = local.name
  region = var.region
}

module "cluster" {
  source = "../../modules/cluster"

  name                = local.name
  project             = var.project
  region              = var.region
  network             = module.network.network
  subnetwork          = module.network.subnetwork
  range_names         = module.network.range_names
  administrators      = var.administrators
  deletion_protection = true

  # Nodes of each of three zones.
  pools = {
    system = { machine_type = "e2-standard-4", least = 1, most = 2 }
    kafka  = { machine_type = "n2d-standard-4", least = 1, most = 2, taint = "cartwin.io/kafka" }
    app    = { machine_type = "e2-standard-4", least = 1, most = 6, spot = true }
  }
}

module "registry" {
  source = "../../modules/registry"

  name    = local.name
  region  = var.region
  project = var.project
}

module "bucket" {
  source = "../../modules/bucket"

  name          = "${local.name}-models"
  region        = var.region
  project       = var.project
  workload_pool = module.cluster.workload_pool
}

module "platform" {
  source = "../../modules/platform"

  depends_on = [module.cluster]
}
