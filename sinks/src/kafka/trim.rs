//! Deletes what is needless at the beginning of the progress topic.

use super::topics::{admin, block_on};
use super::{KafkaConfig, KafkaError};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::Duration;

/// How long a commit may be held up by it.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Trimmer {
    admin: AdminClient<DefaultClientContext>,
}

impl Trimmer {
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        Ok(Self { admin: admin(config)? })
    }

    /// Deletes the records before this offset. What the broker refuses stays until the next checkpoint: nothing depends
    /// on it but room on its disk.
    pub(super) fn trim(&self, topic: &str, offset: i64) {
        let mut list = TopicPartitionList::new();
        let listed = list.add_partition_offset(topic, 0, Offset::Offset(offset));
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let deleted = listed.and_then(|()| block_on(self.admin.delete_records(&list, &options)));
        let result = deleted.and_then(|list| list.elements().iter().try_for_each(|e| e.error()));
        match result {
            Ok(()) => tracing::debug!(topic, offset, "trimmed"),
            Err(error) => tracing::warn!(topic, offset, %error, "the progress topic could not be trimmed"),
        }
    }
}
