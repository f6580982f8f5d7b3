# One broker that is its own controller, from the class path of the image.
set -eu
export KAFKA_HEAP_OPTS="-Xmx320m" KAFKA_LOG4J_OPTS="-Dlog4j2.configurationFile=/stack/etc/log4j2.yaml" LOG_DIR=/tmp
[ -f /var/lib/kafka/data/meta.properties ] || \
    /opt/kafka/bin/kafka-storage.sh format -t "$(cat /stack/etc/kafka.cluster)" -c /stack/etc/kafka.properties
exec /opt/kafka/bin/kafka-server-start.sh /stack/etc/kafka.properties
