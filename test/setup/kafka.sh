#!/usr/bin/env bash
# Apache Kafka's broker from Maven Central, kept outside the checkout. Prints the directory that holds lib/*.jar.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

version=4.3.1
directory=$tidemark_cache/kafka-$version

fetch_jars() { # DIRECTORY
  cat >"$1/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemark</groupId><artifactId>kafka-broker</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.24.3</version></dependency>
  </dependencies>
</project>
XML
  echo "setup: fetching Apache Kafka $version from Maven Central" >&2
  (cd "$1" && mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory=lib </dev/null >&2) &&
    [ -n "$(find "$1/lib" -name "kafka_2.13-$version.jar")" ]
}

[ -d "$directory" ] || command -v mvn >/dev/null || unavailable 'no Maven, so no Kafka broker'
make_once "$directory" "kafka_2.13-$version" fetch_jars || unavailable 'Apache Kafka could not be fetched from Maven Central'
echo "$directory"
