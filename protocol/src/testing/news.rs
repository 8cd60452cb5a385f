//! Who is to be told of news.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

type Wake = Arc<dyn Fn() + Send + Sync>;

/// Wakers, each as long as its guard is there.
#[derive(Clone, Default)]
pub(super) struct News(Arc<Mutex<Vec<Weak<Guard>>>>);

struct Guard(Wake);

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("News")
    }
}

impl News {
    pub(super) fn add(&self, wake: Wake) -> Box<dyn Send + Sync> {
        let guard = Arc::new(Guard(wake));
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.push(Arc::downgrade(&guard));
        Box::new(guard)
    }

    pub(super) fn tell(&self) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.retain(|waker| waker.strong_count() > 0);
        let all: Vec<_> = wakers.iter().filter_map(Weak::upgrade).collect();
        drop(wakers);
        for guard in all {
            (guard.0)();
        }
    }
}
