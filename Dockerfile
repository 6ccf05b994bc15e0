# ddpm serve on CPU or GPU nodes: only the build of torch differs (TORCH).
#   CPU   docker build --tag ddpm-lookalike:0.1.0 .
#   CUDA  docker build --tag ddpm-lookalike:0.1.0-cuda --build-arg TORCH=cuda .
#   older drivers          …:0.1.0-cuda12 … TORCH=cuda12 (docs/operations.md, Drivers)
# Only what serving needs is inside; --build-arg EXTRA=train adds what training needs, a compiler among it.
# A pip.conf of one's own (mirror, certificate) is lent to the build and stays out of it: --secret id=pip_conf,src=pip.conf

# A tag moves, a digest does not. For a newer one: docker buildx imagetools inspect debian:bookworm-slim
ARG BASE=docker.io/library/debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171
FROM ${BASE} AS base
# Debian keeps only its newest security fix, so a version pinned here would soon not build (DL3008).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*


FROM base AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && python3 -m venv --without-pip /opt/ddpm
ENV PIP_PYTHON=/opt/ddpm/bin/python PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src

# From the slowest to change to the quickest: the packages, our code, the model.
# Each file of a package is one whose hash is listed here; `make lock` makes the lists anew.
COPY requirements requirements
ARG TORCH=cpu
ARG EXTRA=
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    pip install --no-cache-dir --require-hashes --only-binary :all: \
        --requirement "requirements/${TORCH}.txt" ${EXTRA:+--requirement "requirements/${EXTRA}.txt"}

COPY pyproject.toml README.md LICENSE ./
COPY ddpm_api ddpm_api
COPY ddpm_core ddpm_core
COPY ddpm_service ddpm_service
COPY handlers handlers
RUN chmod -R a+rX . && pip install --no-cache-dir --no-deps --no-build-isolation --no-index .

# What models.yaml names must be inside: an image that lacks it would never be ready.
COPY config.properties models.yaml /app/
COPY recipes /app/recipes
COPY models models
RUN mkdir -p /app/handlers \
    && cp handlers/metrics.yaml handlers/log4j2.xml /app/handlers/ \
    && for bundle in models/*/*/; do /opt/ddpm/bin/ddpm pack "$bundle" --model-store /app/model_store || exit 1; done \
    && /opt/ddpm/bin/python -c 'import sys; from pathlib import Path; from ddpm_service.torchserve import desired; \
        models = desired.load(Path("/app/models.yaml")).models.values(); \
        named = {version.archive for model in models for version in model.versions.values()}; \
        absent = sorted(named - {file.name for file in Path("/app/model_store").iterdir()}); \
        sys.exit(f"models.yaml names what is not packed: {absent}" if absent else 0)' \
    && chmod -R a+rX /app


FROM base
# torch.compile writes C and C++, and without a compiler and Python's headers it stays off.
ARG EXTRA=
# hadolint ignore=DL3008
RUN if [ "${EXTRA}" = train ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends g++ python3-dev \
        && rm -rf /var/lib/apt/lists/* /var/cache/apt/*; \
    fi
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin ddpm
COPY --from=build /opt/ddpm /opt/ddpm
COPY --from=build /app /app
WORKDIR /app
# All that libraries keep lies under HOME, and /tmp is the one place that may be written. Nothing is fetched at run time.
# GKE and Cloud Run mount the driver at /usr/local/nvidia; elsewhere the container toolkit puts it where the system looks.
# Memory of a GPU in segments that grow: batches of many sizes leave no gaps that fit nobody.
ENV PATH=/opt/ddpm/bin:/usr/local/nvidia/bin:/usr/local/bin:/usr/bin:/bin \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    PYTORCH_ALLOC_CONF=expandable_segments:True \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PORT=8000
USER 10001:10001
EXPOSE 8000 8001 8002
# tini reaps and passes signals on; arguments of the container are options of ddpm serve.
ENTRYPOINT ["/usr/bin/tini", "--", "ddpm", "serve", "--host", "0.0.0.0"]
