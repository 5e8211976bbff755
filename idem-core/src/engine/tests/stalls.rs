//! A process that stalls for longer than a lease between its claim and its handler.

use super::*;

/// A backend whose answers take ten milliseconds, and an engine over it.
fn slow() -> (Faulty, Engine) {
    let backend = Faulty::default();
    backend.fault.slow.store(true, Ordering::SeqCst);
    let engine = Engine::new(backend.clone());
    (backend, engine)
}

/// Makes a request whose process stalls for two leases while the answer to its claiming call number `calls` is on its way.
async fn stall(
    engine: &Engine,
    calls: u32,
    handler: impl Future<Output = HandlerResult<&'static str>> + Send + 'static,
) -> Got {
    let request = execute(engine, handler);
    let mut request = std::pin::pin!(request);
    for _ in 1..calls {
        assert!(request.as_mut().now_or_never().is_none(), "the answer is on its way");
        sleep(Duration::from_millis(15)).await;
    }
    assert!(request.as_mut().now_or_never().is_none(), "the answer is on its way");
    advance(LEASE * 2).await;
    request.await
}

/// Leaves a lapsed claim, so that the next request makes two claiming calls.
async fn leave_a_lapsed_claim(backend: &Faulty) {
    leave_a_claim(backend, LEASE).await;
}

/// Leaves a claim that was made so long ago.
async fn leave_a_claim(backend: &Faulty, ago: Duration) {
    let dead = Claim::first(REQUEST, &POLICY);
    let claimed = backend.inner.claim(&key(), &dead).await.expect("healthy");
    assert_eq!(claimed, Acquisition::Acquired);
    advance(ago).await;
}

#[tokio::test(start_paused = true)]
async fn idem_1_a_claim_that_may_have_lapsed_in_a_stall_is_renewed_before_its_handler_starts() {
    let (_, engine) = slow();
    assert_eq!(stall(&engine, 1, async { stored("201") }).await, executed("201"));
    let (backend, engine) = slow();
    leave_a_lapsed_claim(&backend).await;
    assert_eq!(stall(&engine, 2, async { stored("201") }).await, executed("201"));
}

#[tokio::test(start_paused = true)]
async fn idem_1_a_claim_that_may_have_lapsed_in_a_stall_and_cannot_be_renewed_does_not_run() {
    let (backend, engine) = slow();
    backend.fault.renewals_fail.store(true, Ordering::SeqCst);
    let failed = Got::Failed(BackendErrorKind::Unavailable);
    assert_eq!(stall(&engine, 1, never()).await, failed);
    let (backend, engine) = slow();
    backend.fault.renewals_fail.store(true, Ordering::SeqCst);
    leave_a_lapsed_claim(&backend).await;
    assert_eq!(stall(&engine, 2, never()).await, failed);
}

#[tokio::test(start_paused = true)]
async fn idem_1_a_claim_that_was_taken_over_in_a_stall_does_not_run() {
    let (backend, engine) = slow();
    let request = execute(&engine, never());
    let mut request = std::pin::pin!(request);
    assert!(request.as_mut().now_or_never().is_none(), "the answer is on its way");
    advance(LEASE * 2).await;
    let other = Engine::new(backend.inner.clone());
    let (started, has_started) = oneshot::channel();
    let running = tokio::spawn(async move {
        let handler = async move {
            let _ = started.send(());
            std::future::pending().await
        };
        execute(&other, handler).await
    });
    has_started.await.expect("the other one runs");
    assert_eq!(request.await, IN_FLIGHT);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_taken_over_stays_a_second_attempt_if_its_first_renewal_fails() {
    let (backend, engine) = slow();
    leave_a_claim(&backend, LEASE.saturating_sub(Duration::from_millis(30))).await;
    let waiting = POLICY.with_wait(LEASE * 10);
    let record = backend.inner.clone();
    let handler = async move {
        let Ok(Some(Record::Claimed { claim, .. })) = record.read(&key()).await else {
            unreachable!("its claim is there");
        };
        assert_eq!(claim.attempt, 2);
        stored("201")
    };
    let request = execute_as(&engine, REQUEST, &waiting, handler);
    let mut request = std::pin::pin!(request);
    while !matches!(
        backend.inner.read(&key()).await,
        Ok(Some(Record::Claimed { claim, .. })) if claim.attempt == 2
    ) {
        assert!(request.as_mut().now_or_never().is_none(), "another one's claim holds");
        sleep(Duration::from_millis(5)).await;
    }
    backend.fault.renewals_fail.store(true, Ordering::SeqCst);
    advance(LEASE * 2).await;
    assert!(request.as_mut().now_or_never().is_none(), "its renewal has failed");
    backend.fault.renewals_fail.store(false, Ordering::SeqCst);
    assert_eq!(request.await, executed("201"));
}
