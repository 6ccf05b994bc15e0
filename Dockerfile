# ddpm serve on CPU or GPU nodes: only the build of torch differs (TORCH_INDEX).
#   CPU   docker build --tag ddpm-lookalike:0.1.0 .
#   CUDA  docker build --tag ddpm-lookalike:0.1.0-cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   older drivers          …:0.1.0-cuda12 … TORCH_INDEX=https://download.pytorch.org/whl/cu126 (docs/operations.md, Drivers)
# Only what serving needs is inside; --build-arg EXTRA=train adds what training needs, a compiler among it.
# A pip.conf of one's own (mirror, certificate) is lent to the build and stays out of it: --secret id=pip_conf,src=pip.conf

FROM docker.io/library/debian:bookworm-slim AS base
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

# From the slowest to change to the quickest: torch, the other packages, our code, the model.
COPY constraints.txt ./
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch

COPY pyproject.toml ./
ARG EXTRA=
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -c 'import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        extras = [project["optional-dependencies"][name] for name in sys.argv[1:]]; \
        print(*sum(extras, project["dependencies"]), sep="\n")' ${EXTRA:+"${EXTRA}"} > requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt

COPY README.md LICENSE ./
COPY ddpm_api ddpm_api
COPY ddpm_core ddpm_core
COPY ddpm_service ddpm_service
COPY handlers handlers
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    chmod -R a+rX . && pip install --no-cache-dir --no-deps .

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
