"""The code map of docs/architecture.md."""
import ast
import re

from tiny import ROOT

PAGE = (ROOT / 'docs/architecture.md').read_text()
FOLDERS = ('univip_mm', 'configs', 'tools', 'tests', 'experiments', 'examples',
           'docs')
CODE = re.compile(r'`([^`\n]+)`')
# Header of the tables that map a part of the method to its code.
HEADER = '| paper | what | class or function | config key | file | test |'


def rows_of_code_map() -> list:
    """Return the cells of each row below HEADER."""
    rows = []
    for table in PAGE.split(HEADER)[1:]:
        lines = table.strip('\n').split('\n\n')[0].splitlines()[1:]
        rows += [[cell.strip() for cell in line.strip('|').split('|')]
                 for line in lines]
    return rows


def definitions_of(path) -> set:
    """Return the names of classes, functions and methods in a file."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
            found |= {f'{node.name}.{x.name}'
                      for x in getattr(node, 'body', [])
                      if isinstance(x, ast.FunctionDef)}
    return found


def test_code_map_paths_exist():
    paths = [x for x in CODE.findall(PAGE) if x.split('/')[0] in FOLDERS
             and '/' in x]
    assert len(paths) > 80
    for path in paths:
        assert (ROOT / path).exists(), path


def test_code_map_names_are_in_their_files():
    rows = rows_of_code_map()
    assert len(rows) > 30
    for row in rows:
        names, (file,) = CODE.findall(row[2]), CODE.findall(row[4])
        assert set(names) <= definitions_of(ROOT / file), row


def test_every_package_folder_is_described():
    for folder in (ROOT / 'univip_mm').iterdir():
        if (folder / '__init__.py').is_file():
            assert f'`univip_mm/{folder.name}/`' in PAGE, folder.name
