# One Connect worker with the Debezium plugin that the volume holds.
set -eu
export KAFKA_HEAP_OPTS="-Xmx320m" KAFKA_LOG4J_OPTS="-Dlog4j2.configurationFile=/stack/etc/log4j2.yaml" LOG_DIR=/tmp
exec /opt/kafka/bin/connect-distributed.sh /stack/etc/connect/connect.properties
