mock_provider "google" {}

variables {
  name    = "cartwin"
  region  = "europe-west3"
  project = "cartwin-test"
}

run "a_tag_stays_what_it_was" {
  assert {
    condition     = google_artifact_registry_repository.this.docker_config[0].immutable_tags
    error_message = "what runs under a version cannot change"
  }
  assert {
    condition     = google_artifact_registry_repository.this.format == "DOCKER"
    error_message = "for images"
  }
  assert {
    condition     = output.url == "europe-west3-docker.pkg.dev/cartwin-test/cartwin"
    error_message = "where to push"
  }
  assert {
    condition     = { for policy in google_artifact_registry_repository.this.cleanup_policies : policy.id => policy.action } == { newest = "KEEP", old = "DELETE" }
    error_message = "the newest stay, the old go"
  }
}

run "one_image_is_not_enough_to_go_back" {
  command = plan
  variables {
    keep = 1
  }
  expect_failures = [var.keep]
}
