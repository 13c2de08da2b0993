# The studio for a shared machine, without a GPU. `docker compose up` builds and starts it: see docs/studio.md.
FROM python:3.11-slim

WORKDIR /opt/flawsmith
COPY pyproject.toml README.md LICENSE ./
COPY docs/licences.md docs/licences.md
COPY constraints/cpu.txt constraints/cpu.txt
COPY src src
# Torch's own index has builds without CUDA, which are a tenth of the size; another one can be named.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints/cpu.txt ".[studio]"

# Nothing runs as root; whoever owns the mounted folder is named in compose.yaml.
RUN useradd --create-home --uid 1000 flawsmith
USER flawsmith
WORKDIR /work
ENV HOME=/tmp
EXPOSE 8765

ENTRYPOINT ["flawsmith"]
CMD ["studio", "--root", "/work", "--host", "0.0.0.0", "--port", "8765", "--no-browser"]
