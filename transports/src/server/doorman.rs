//! Who may be here: the store of a session that does not know yet whose it is.
//!
//! The first thing that a hub's session asks of its store is to admit the client.
//! The doorman finds the workspace, compares the token, and from then on passes
//! everything to the store of that workspace. Before that there is no store, and
//! nothing of any workspace is touched.

use std::sync::{Arc, OnceLock};

use cairn_protocol::session::{HubAction, HubDone, Store, StoreFailure};
use cairn_protocol::wire::{Code, Hello};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::registry::{Place, Registry};
use super::workspaces::{Hub, Permission, Workspaces};

/// Something to call when there is news.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// A store that is nobody's until the client is admitted.
pub(super) struct Doorman {
    workspaces: Arc<dyn Workspaces>,
    registry: Arc<Registry>,
    place: Arc<Place>,
    /// The place of a stranger; given up on admission.
    stranger: Mutex<Option<OwnedSemaphorePermit>>,
    admitted: OnceLock<Arc<dyn Store<HubAction, HubDone>>>,
    listening: Arc<Mutex<Listening>>,
}

/// The call that is wanted, and what keeps it up once there is a store.
#[derive(Default)]
struct Listening {
    wake: Option<Wake>,
    guard: Option<Box<dyn Send + Sync>>,
}

/// Ends the calls.
struct StopListening(Arc<Mutex<Listening>>);

impl Drop for StopListening {
    fn drop(&mut self) {
        // The guard goes after the lock: it may wait for a call that is under way.
        let listening = std::mem::take(&mut *self.0.lock());
        drop(listening);
    }
}

impl Doorman {
    pub(super) fn new(
        workspaces: Arc<dyn Workspaces>,
        registry: Arc<Registry>,
        place: Arc<Place>,
        stranger: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            workspaces,
            registry,
            place,
            stranger: Mutex::new(Some(stranger)),
            admitted: OnceLock::new(),
            listening: Arc::default(),
        }
    }

    fn admit(&self, hello: Box<Hello>) -> HubDone {
        let (workspace, replica) = (hello.workspace, hello.replica);
        let Some(hub) = self.workspaces.find(workspace) else {
            return refused(Code::WORKSPACE, "there is no such workspace here");
        };
        let Some(permission) = hub.access().permission(&hello.token) else {
            return refused(Code::AUTH, "the token is missing or wrong");
        };
        let store = self.open(&*hub);
        let mut answer = store.perform(HubAction::Admit(hello));
        if let HubDone::Admitted(admission) = &mut answer {
            admission.may_push &= permission == Permission::Write;
            self.registry.admit(&self.place, workspace, replica);
            drop(self.stranger.lock().take());
        }
        answer
    }

    /// The store of this connection; news are passed on from now on.
    fn open(&self, hub: &dyn Hub) -> Arc<dyn Store<HubAction, HubDone>> {
        let store = self.admitted.get_or_init(|| hub.session());
        let wake = self.listening.lock().wake.clone();
        if let Some(wake) = wake {
            let guard = store.on_news(wake);
            let mut listening = self.listening.lock();
            // If it is no longer wanted, the guard goes at once.
            if listening.wake.is_some() {
                listening.guard = Some(guard);
            }
        }
        Arc::clone(store)
    }
}

fn refused(code: Code, detail: &str) -> HubDone {
    HubDone::Failed(StoreFailure {
        code,
        detail: detail.to_owned(),
        retry_after_ms: 0,
    })
}

impl Store<HubAction, HubDone> for Doorman {
    fn perform(&self, action: HubAction) -> HubDone {
        match (action, self.admitted.get()) {
            (HubAction::Admit(hello), _) => self.admit(hello),
            (action, Some(store)) => store.perform(action),
            (_, None) => refused(Code::STATE, "nobody was admitted"),
        }
    }

    fn on_news(&self, wake: Wake) -> Box<dyn Send + Sync> {
        let guard = self.admitted.get().map(|store| store.on_news(wake.clone()));
        *self.listening.lock() = Listening {
            wake: Some(wake),
            guard,
        };
        Box::new(StopListening(Arc::clone(&self.listening)))
    }
}
