//! The provider of payments and mails, over HTTP.

use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::payments::{Payment, PaymentError};

#[derive(Clone)]
pub(crate) struct Provider {
    http: reqwest::Client,
    url: String,
}

/// Money that is held for a payment.
#[derive(Deserialize, Serialize)]
pub(crate) struct Hold {
    id: String,
}

/// What became of a hold.
#[derive(Deserialize, Serialize)]
pub(crate) enum Capture {
    Done { charge: String },
    Declined,
}

impl Provider {
    pub(crate) fn new(url: String) -> Self {
        let http = reqwest::Client::new();
        Self { http, url }
    }

    /// Holds the money. Repeated with the same key, it is the same hold.
    pub(crate) async fn hold(&self, key: String, payment: &Payment) -> Result<Hold, PaymentError> {
        let asked = self
            .http
            .post(format!("{}/holds", self.url))
            .header("Idempotency-Key", key);
        let id = asked.json(payment).send().await?.error_for_status()?.text().await?;
        Ok(Hold { id })
    }

    /// Captures the money. Repeated, it may take the money twice.
    pub(crate) async fn capture(&self, hold: &Hold) -> Result<Capture, PaymentError> {
        let asked = self.http.post(format!("{}/holds/{}/captures", self.url, hold.id));
        captured(asked.send().await?).await
    }

    /// What became of a hold, if it was to be captured.
    pub(crate) async fn find_capture(&self, hold: &Hold) -> Result<Option<Capture>, PaymentError> {
        let found = self
            .http
            .get(format!("{}/holds/{}/captures", self.url, hold.id))
            .send()
            .await?;
        if found.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        captured(found).await.map(Some)
    }

    /// Sends the receipt. Repeated with the same key, it is sent once.
    pub(crate) async fn mail(&self, key: String, payment: &Payment) -> Result<(), PaymentError> {
        let asked = self
            .http
            .post(format!("{}/mails", self.url))
            .header("Idempotency-Key", key);
        asked.json(payment).send().await?.error_for_status()?;
        Ok(())
    }
}

async fn captured(answer: Response) -> Result<Capture, PaymentError> {
    if answer.status() == StatusCode::PAYMENT_REQUIRED {
        return Ok(Capture::Declined);
    }
    let charge = answer.error_for_status()?.text().await?;
    Ok(Capture::Done { charge })
}
