mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email = "models@cartwin-test.iam.gserviceaccount.com"
      name  = "projects/cartwin-test/serviceAccounts/models@cartwin-test.iam.gserviceaccount.com"
    }
  }
}

variables {
  name          = "cartwin-test-models"
  region        = "europe-west3"
  project       = "cartwin-test"
  workload_pool = "cartwin-test.svc.id.goog"
}

run "models_are_private_and_have_a_past" {
  assert {
    condition     = google_storage_bucket.models.public_access_prevention == "enforced" && google_storage_bucket.models.uniform_bucket_level_access
    error_message = "nobody outside reads them"
  }
  assert {
    condition     = google_storage_bucket.models.versioning[0].enabled && !google_storage_bucket.models.force_destroy
    error_message = "what was overwritten can be had back"
  }
  assert {
    condition     = output.model_store == "gs://cartwin-test-models/engine"
    error_message = "what MODEL_STORE is"
  }
}

run "pods_are_an_account_and_have_no_key" {
  assert {
    condition     = sort([for one in google_service_account_iam_member.pods : one.member]) == tolist(["serviceAccount:cartwin-test.svc.id.goog[cartwin/scorer]", "serviceAccount:cartwin-test.svc.id.goog[cartwin/trainer]"])
    error_message = "scorer and trainer, by workload identity"
  }
  assert {
    condition     = alltrue([for one in google_service_account_iam_member.pods : one.role == "roles/iam.workloadIdentityUser"])
    error_message = "they may be it, not manage it"
  }
  assert {
    condition     = google_storage_bucket_iam_member.models.role == "roles/storage.objectUser" && google_storage_bucket_iam_member.models.member == "serviceAccount:models@cartwin-test.iam.gserviceaccount.com"
    error_message = "it reads and writes objects of this bucket"
  }
}

run "a_reader_without_a_namespace_is_refused" {
  command = plan
  variables {
    readers = ["scorer"]
  }
  expect_failures = [var.readers]
}
