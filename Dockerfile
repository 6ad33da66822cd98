# The service `oaks serve` in a container, on CPUs or on NVIDIA GPUs:
#
#   docker build --tag oaks .
#   docker build --tag oaks:cuda --build-arg VARIANT=cuda .
#   docker run --rm --publish 8000:8000 --shm-size 1g oaks
#   docker run --rm --publish 8000:8000 --shm-size 1g --gpus all oaks:cuda serve tiny --host 0.0.0.0
#
# Both variants build the wheel from this tree in a first stage and install it, with its extras, in a second one.
ARG VARIANT=cpu

FROM python:3.11-slim-bookworm AS base-cpu-build
FROM python:3.11-slim-bookworm AS base-cpu-run
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS base-cuda-build
FROM nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04 AS base-cuda-run

# ---- the wheel
# hadolint ignore=DL3006
FROM base-${VARIANT}-build AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential python3-dev python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY . /source
# hadolint ignore=DL3013
RUN python3 -m venv /tools \
    && /tools/bin/pip install --no-cache-dir build \
    && /tools/bin/python -m build --wheel --outdir /wheels /source

# ---- what runs
# hadolint ignore=DL3006
FROM base-${VARIANT}-run AS run
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 oaks \
    && python3 -m venv /opt/venv
COPY --from=build /wheels /wheels
ARG VARIANT
# On GPUs torch runs the networks: it brings the CUDA libraries that it needs.
RUN extras="ray,openvino,video" \
    && index="https://download.pytorch.org/whl/cpu" \
    && if [ "${VARIANT}" = cuda ]; then extras="ray,export,video"; index="https://download.pytorch.org/whl/cu128"; fi \
    && wheel="$(find /wheels -name 'oaks-*.whl')" \
    && /opt/venv/bin/pip install --no-cache-dir --extra-index-url "${index}" "${wheel}[${extras}]" \
    && rm -rf /wheels
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 10001
WORKDIR /home/oaks
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# Serve's replicas answer what they took before they end.
STOPSIGNAL SIGTERM
ENTRYPOINT ["oaks"]
CMD ["serve", "small", "--host", "0.0.0.0"]
