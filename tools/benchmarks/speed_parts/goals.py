"""Goals of the training step, and the table as text."""
from typing import Optional

Comparisons = dict[str, dict]
COLUMNS = (  # title, key, format
    ('ms', 'ms', '.1f'), ('median', 'ms_median', '.1f'),
    ('min', 'ms_min', '.1f'), ('images/s', 'images_per_s', '.1f'),
    ('operations', 'operations', ',d'), ('launches', 'launches', ',.0f'),
    ('kernels', 'kernels', ',.0f'), ('waits', 'waits', '.1f'),
    ('reads', 'reads', 'd'), ('busy', 'busy', '.0%'), ('GiB', 'GiB', '.2f'),
    ('start s', 'start_s', '.1f'))
LEGEND = '''Per step, except start.
ms: on a GPU, the mean of steps in a row without waiting; on a CPU, the
shortest step. median, min: of steps with a wait after each. operations:
without views. launches: starts of kernels, copies and graphs. waits: the host
waits for the GPU. reads: operations whose result the host needs. busy: share
of ms in which the GPU works. GiB: reserved memory. start: build and first
steps, with the compilation.'''


def compare_rows(rows: dict[str, dict], gpu: bool, depth: int) -> Comparisons:
    """Compare the rows of the table with each other and with the goals.

    Args:
        rows (dict): Values of each row.
        gpu (bool): Choose the goals of a GPU instead of a CPU.
        depth (int): Depth of the ResNet. The number of operations has a goal
            for depth 50.

    Returns:
        dict: For each comparison ``value``, None if a row is not measured;
        ``goal``, the largest good value, or None; and ``rows``.
    """
    if gpu:
        comparisons = _compare_on_gpu(rows)
    else:
        comparisons = {
            'time, float32, univip / byol': _ratio(
                rows, 'ms', 'univip float32', 'byol float32', 1.37),
            'time, float32, univip / bare arithmetic': _ratio(
                rows, 'ms', 'univip float32', 'bare float32', None)}
    for name in ('univip float32', 'univip bf16'):
        goal = 2900 if name == 'univip float32' else 3000
        comparisons[f'operations, {name}'] = _value(
            rows, 'operations', name, goal if depth == 50 else None)
    for name in rows:
        if name.startswith('univip'):
            key = 'waits' if 'waits' in rows[name] else 'reads'
            comparisons[f'{key}, {name}'] = _value(rows, key, name, 0)
    return comparisons


def _compare_on_gpu(rows: dict[str, dict]) -> Comparisons:
    ours, bare = _fastest(rows, 'univip bf16'), _fastest(rows, 'bare bf16')
    graph = 'univip bf16 cuda_graph'
    return {
        'time, float32, univip / byol': _ratio(
            rows, 'ms', 'univip float32', 'byol float32', 1.4),
        'time, fastest univip bf16 / byol amp': _ratio(
            rows, 'ms', ours, 'byol amp', 0.7),
        'time, bf16 graph, univip / fastest bare arithmetic': _ratio(
            rows, 'ms', graph, bare, 1.5),
        'time, bf16 graph, univip / bare arithmetic': _ratio(
            rows, 'ms', graph, 'bare bf16 cuda_graph', 1.5),
        'time, bf16 inductor, univip / bare arithmetic': _ratio(
            rows, 'ms', 'univip bf16 inductor', 'bare bf16 inductor', 1.5),
        'time, bf16 inductor, univip / byol': _ratio(
            rows, 'ms', 'univip bf16 inductor', 'byol bf16 inductor', None),
        'memory, fastest univip bf16 / byol amp': _ratio(
            rows, 'GiB', ours, 'byol amp', 1.2)}


def _fastest(rows: dict[str, dict], kind: str) -> Optional[str]:
    names = [name for name in rows
             if name.startswith(kind) and 'ms' in rows[name]]
    return min(names, key=lambda name: rows[name]['ms'], default=None)


def _ratio(rows: dict[str, dict], key: str, ours: Optional[str],
           reference: Optional[str], goal: Optional[float]) -> dict:
    values = [rows.get(name or '', {}).get(key) for name in (ours, reference)]
    value = None if None in values else values[0] / values[1]
    return dict(value=value, goal=goal, rows=[ours, reference])


def _value(rows: dict[str, dict], key: str, name: str,
           goal: Optional[float]) -> dict:
    return dict(value=rows[name].get(key), goal=goal, rows=[name])


def format_table(table: dict) -> str:
    """Return the rows, the comparisons and the places of host reads."""
    width = max(map(len, table['rows']))
    lines = [f'{"":{width}}' + ''.join(f'{c[0]:>11}' for c in COLUMNS)]
    for name, values in table['rows'].items():
        cells = [format(values[key], form) if key in values else '-'
                 for _, key, form in COLUMNS]
        lines.append(f'{name:{width}}' + ''.join(f'{x:>11}' for x in cells))
        if 'status' in values:
            lines.append(f'{"":{width}}   {values["status"]}')
    lines += ['', LEGEND, '']
    for name, entry in table['comparisons'].items():
        lines.append(_format_comparison(name, entry))
    for name, values in table['rows'].items():
        for title in ('stages', 'read_places'):
            lines += _format_counts(name, title, values.get(title, {}))
    return '\n'.join(lines)


def _format_comparison(name: str, entry: dict) -> str:
    value, goal = entry['value'], entry['goal']
    text = 'not measured' if value is None else f'{value:,.6g}'
    if goal is not None:
        text += f' (at most {goal:,g}'
        text += ')' if value is None or value <= goal else ', not reached)'
    return f'{name:52}{text}'


def _format_counts(name: str, title: str, counts: dict) -> list[str]:
    if not counts:
        return []
    title = dict(stages='operations', read_places='host reads')[title]
    return ['', f'{name}: {title}'] + [
        f'  {number:7,d}  {place}' for place, number in sorted(
            counts.items(), key=lambda item: -item[1])]
